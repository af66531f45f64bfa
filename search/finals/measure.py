"""Measurement of students on the test split: winners, baselines, and the teacher itself."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.intervals import Interval, difference_interval, mean_interval
from distill import Corpus, Evaluation, Targets, teacher_cross_entropy
from distill.recipes import Assets
from pruning import Architecture
from search.config.names import (
    EVIDENCE_FULL,
    EVIDENCE_NONE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
    UNCORRECTED,
)
from search.finals.selection import FinalSelection
from search.finals.testing import StudentTests, tested
from search.results.results import (
    CorrectedStudent,
    CorrectedTeacher,
    CorrectionResult,
    ScoreIntervals,
    Scores,
    StudentResult,
)
from search.results.results_file import from_json
from search.space.anchors import UNIFORM
from search.workers.full_runs import (
    MEMBER_SEPARATOR,
    FullPlan,
    FullResult,
    FullRun,
    load_result,
    uncorrected,
)
from workspace.corrected_teacher import correction_facts

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One student with all its seeds, measured on the test split."""

    role: str
    """Candidate, or the name of the baseline that it is."""
    architecture: Architecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    runs: list[FullResult]
    """Its full runs, one per training seed."""
    test: list[Evaluation]
    """Scores of each run's checkpoint."""

    @property
    def from_scratch(self) -> bool:
        """Whether it was trained from random weights."""
        return self.runs[0].run.from_scratch

    def interval(self, metric: str) -> Interval:
        """Mean of a metric over sequences and seeds."""
        return mean_interval([getattr(evaluation, metric) for evaluation in self.test])

    @property
    def _cut_from(self) -> str:
        if self.from_scratch:
            return "nothing: random weights"
        return self.runs[0].run.source.partition(MEMBER_SEPARATOR)[0] or "teacher"

    def result(self) -> StudentResult:
        """Its entry in results.json."""
        first = self.runs[0]
        return StudentResult(
            role=self.role,
            architecture=self.architecture,
            parameters=self.parameters,
            tokens=first.tokens,
            cut_from=self._cut_from,
            selection_kl=first.selection.means()["kl"],
            curve=list(first.curve),
            checkpoint=Scores(**self.test[0].means()),
            test=ScoreIntervals(*map(self.interval, ("kl", "ce", "top1_agreement"))),
        )


@dataclass(frozen=True)
class MeasuredStudents:
    """Winners and baselines of a study, measured on the test split."""

    winners: list[Measured]
    """Best first."""
    baselines: dict[str, Measured]
    """Those that were distilled in full and came through, by name; one may be a winner too."""

    @property
    def best(self) -> Measured:
        """The winner."""
        return self.winners[0]

    @property
    def distinct(self) -> list[Measured]:
        """Each once, winners first."""
        students = [*self.winners, *self.baselines.values()]
        return list({id(student): student for student in students}.values())


@dataclass(frozen=True)
class _Student:
    """A student whose runs came through, before it is measured."""

    run: FullRun
    """Its run of the first seed."""
    results: list[FullResult]
    """All its runs, one per training seed."""
    models: list[Path]
    """The checkpoint of each."""

    @property
    def key(self) -> tuple[Architecture, bool]:
        """Which student it is, whatever its role."""
        return self.run.architecture, self.run.from_scratch

    def measured(self, test: Mapping[Path, Evaluation], parameters: int) -> Measured:
        """With the scores of its checkpoints."""
        run = self.run
        scores = [test[model] for model in self.models]
        measured = Measured(run.role, run.architecture, parameters, self.results, scores)
        LOGGER.info(f"test: {run}: kl {measured.interval('kl')}")
        return measured


@dataclass(frozen=True)
class Measurement:
    """Measurement of students on the test split."""

    tests: StudentTests
    """Where it is done, and how the students were distilled."""
    parameters_of: Callable[[Architecture], int]
    """Counts their parameters."""
    best: Path
    """The winner's first checkpoint, as it is given to users."""

    def students(self, selection: FinalSelection, ranking: list[FullRun]) -> MeasuredStudents:
        """Measure winners and baselines, each once.

        Baselines are those that were distilled in full, as far as they came through. Raises
        SearchStopped where a checkpoint cannot be measured.
        """
        stage, plan = selection.stage, self.tests.plan
        seeds = max(stage.seeds, stage.finalist_seeds)
        candidates = [self._found(run, seeds=seeds, first=run == ranking[0]) for run in ranking]
        winners = [student for student in candidates if student]
        known = {student.key: student for student in winners}
        named = {}
        for name, run in _baselines(selection, winners[0].run.architecture, plan=plan).items():
            student = known.get((run.architecture, run.from_scratch))
            student = student or self._found(run, seeds=seeds)
            if student is not None:
                named[name] = student
            elif stage.evidence == EVIDENCE_FULL:
                LOGGER.info(f"test: {run} has no finished run")
        different = list({id(one): one for one in [*winners, *named.values()]}.values())
        test = self.tests.of([model for student in different for model in student.models])
        measured = {
            id(one): one.measured(test, self.parameters_of(one.run.architecture))
            for one in different
        }
        return MeasuredStudents(
            [measured[id(one)] for one in winners],
            {name: measured[id(one)] for name, one in named.items()},
        )

    def _found(self, run: FullRun, *, seeds: int, first: bool = False) -> _Student | None:
        """All seeds of a student, `first` of all or not; None where no run of it came through."""
        runs = [replace(run, shuffle=shuffle) for shuffle in range(seeds)]
        results = [result for each in runs if (result := load_result(each, self.tests.plan))]
        if not results:
            return None
        models = [result.model for result in results]
        return _Student(run, results, [self.best, *models[1:]] if first else models)


def _baselines(
    selection: FinalSelection, winner: Architecture, *, plan: FullPlan
) -> dict[str, FullRun]:
    """The full runs that a winner of this architecture is held against, by name."""
    if selection.stage.evidence == EVIDENCE_NONE:
        return {}
    scratch = selection.scratch(winner)
    if scratch.tokens is not None and scratch.tokens < plan.tokens:
        scratch = replace(scratch, tokens=None)  # one of an earlier start, if there is one
    shapes = {UNIFORM: selection.uniform, RANDOM_ARCHITECTURE: selection.random}
    runs = {name: selection.run(name, shape) for name, shape in shapes.items() if shape is not None}
    return {**runs, RANDOM_INITIALISATION: scratch}


def correction_result(winner: Measured, plan: FullPlan) -> CorrectionResult | None:
    """Gain of teacher and winner by correcting the teacher; None where it was not corrected.

    The student's gain is in cross-entropy to the test text, since the two teachers differ; it is
    paired over sequences, of one training seed.
    """
    facts = correction_facts(plan.assets.teacher)
    if facts is None:
        return None
    teacher = from_json(CorrectedTeacher, facts)
    other = load_result(FullRun(UNCORRECTED, winner.architecture), uncorrected(plan))
    if other is None:
        return CorrectionResult(teacher, None)
    without = tested(other.model, plan.assets)
    own, ce = winner.test[0], without.means()["ce"]
    LOGGER.info(f"test: {UNCORRECTED} {winner.architecture}: cross-entropy {ce:.4f}")
    difference = difference_interval([own.ce], [without.ce])
    return CorrectionResult(teacher, CorrectedStudent(own.means()["ce"], ce, difference))


def teacher_losses(assets: Assets) -> NDArray[np.float64]:
    """The teacher's own cross-entropy on the test split, nats per token [sequences]."""
    corpus = Corpus(assets.corpus)
    sequences = len(corpus.blocks("test"))
    weights = corpus.weights("test")
    return teacher_cross_entropy(Targets(assets.test_targets), sequences, weights)
