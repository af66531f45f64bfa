"""The outcome of a run: the student in its place, measured on the test split beside its start."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_directory_atomically
from common.intervals import mean_interval
from distill import Corpus, Evaluation, Targets, teacher_cross_entropy
from distill.recipes import MODEL, RunResult, points_to_json
from experiments.distill.inputs import DistillInputs
from search.results import Origin, shown_name, write_distilled_card
from workspace.corpus_and_targets import SELECTION, TEST, evaluate_on_test_split
from workspace.corrected_teacher import correction_facts
from workspace.models import ModelSource, facts_of_cut, place_student, write_cut_facts
from workspace.proof import require_copied, written_line

LOGGER = logging.getLogger(__name__)
STUDENT = "student"
"""Folder of the student, for others to use."""


@dataclass(frozen=True)
class Outcome:
    """A student that was trained to the end."""

    inputs: DistillInputs
    """Models and settings of the run."""
    corpus: Corpus
    """The text that it read and is measured on."""
    teacher: ModelSource
    """The one that taught: that of the user, or corrected."""
    test_targets: Path
    """Its targets on the test split."""
    trained: Path
    """Folder of the trained student."""

    def placed(self, goal: Path) -> dict[str, Any]:
        """Measure start and end on the test split, and put the student into `goal`.

        Returns what distill.json holds. Raises SearchStopped where the student, loaded again, is
        not the one that was measured.
        """
        run = RunResult.read(self.trained)
        assert run is not None, "training wrote it"
        before = self._measured(self.inputs.student.directory)
        after = self._measured(self.trained / MODEL)
        facts = self._facts(run, before=before, after=after)
        place = partial(self._place, facts=facts, answers=run.answers)
        write_directory_atomically(goal, place)
        for name in ("kl", "ce", "top1_agreement"):
            old, new = np.mean(getattr(before, name)), mean_interval([getattr(after, name)])
            LOGGER.info(f"test {name}: {old:.4f} -> {new}")
        LOGGER.info(f"student: {goal}")
        return facts

    def _measured(self, model: Path) -> Evaluation:
        return evaluate_on_test_split(
            model, self.corpus, targets=self.test_targets, device=self.inputs.device
        )

    def _facts(self, run: RunResult, *, before: Evaluation, after: Evaluation) -> dict[str, Any]:
        config, inputs = self.inputs.config, self.inputs
        sequences, weights = len(self.corpus.blocks(TEST)), self.corpus.weights(TEST)
        teacher = teacher_cross_entropy(Targets(self.test_targets), sequences, weights)
        return {
            "teacher": {
                "name": shown_name(config.teacher),
                "parameters": inputs.teacher.parameters,
                "test_ce": mean_interval([teacher]).to_dict(),
                "correction": correction_facts(self.teacher.directory),
            },
            "student": {
                "name": shown_name(config.student),
                "parameters": inputs.student.parameters,
            },
            "before": _shown(before),
            "after": _shown(after),
            "tokens": run.tokens,
            "seconds": round(run.seconds, 1),
            "workers": config.workers.count,
            "curve": points_to_json(run.curve),
            "settings": inputs.parts,
        }

    def _place(
        self, directory: Path, *, facts: dict[str, Any], answers: Sequence[float] | None
    ) -> None:
        """Put the trained student there, with proof that it is loaded as it was measured."""
        config, student, teacher = self.inputs.config, self.inputs.student, self.inputs.teacher
        model = self.trained / MODEL
        place_student(model, directory, parent=student, teacher=teacher)
        models = {config.student: student.directory, config.teacher: teacher.directory}
        write_cut_facts(directory, facts_of_cut(student.directory))
        write_distilled_card(directory, facts, origin=Origin.of(models, config.corpus))
        block = self.corpus.blocks(SELECTION)[0]
        differing = require_copied(directory, model, block=block, measured=answers)
        LOGGER.info(written_line("the student", differing))


def _shown(evaluation: Evaluation) -> dict[str, Any]:
    """Means with their intervals over sequences; one seed ran."""
    return {
        name: mean_interval([getattr(evaluation, name)]).to_dict() for name in evaluation.means()
    }
