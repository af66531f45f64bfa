"""Corrected teacher: fitted to the corpus, kept in the workspace as a checkpoint of its own."""

import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import write_directory_atomically
from common.fingerprint import fingerprint
from common.intervals import difference_interval, mean_interval
from distill import Corpus
from distill.recipes import Correction, CorrectionPlan, CorrectionSettings, correct_teacher
from distill.train import ResolvedTraining, RunLimits, gathered_weights, write_model
from workspace.layout import Workspace
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
from workspace.models.student_folder import finish_folder

LOGGER = logging.getLogger(__name__)
FACTS = "correction.json"
"""In the folder of a corrected teacher: what its correction brought."""


@dataclass(frozen=True)
class TeacherCorrection:
    """Fine-tuning of the teacher on the corpus, done once."""

    settings: CorrectionSettings
    """How long, and at which rate."""
    training: ResolvedTraining
    """Its batch, precision and memory settings are used."""
    corpus: Corpus
    """Its training split is read, its selection split measured."""
    seed: int
    """Fixes the order of the text."""
    checkpoint_seconds: float
    """Least seconds between two checkpoints."""

    def corrected(self, model: LoadedModel, workspace: Workspace) -> LoadedModel:
        """The corrected teacher in the place of `model`, trained now or before; `model` itself
        where no correction is wanted.

        Raises what `correct_teacher` raises.
        """
        if not self.settings.tokens:
            return model
        model.release()
        name = self._fingerprint(model.source)
        directory = workspace.corrected_teacher(name)
        if not directory.exists():
            checkpoint = workspace.correction(name)
            self._train(model, directory, checkpoint=checkpoint)
            shutil.rmtree(checkpoint, ignore_errors=True)
        facts = correction_facts(directory)
        assert facts is not None
        before, after = (facts[name]["mean"] for name in ("before", "after"))
        LOGGER.info(f"teacher: corrected, selection cross-entropy {before:.4f} -> {after:.4f}")
        return model.like(ModelSource.open(str(directory), prunable=model.source.known))

    def _fingerprint(self, teacher: ModelSource) -> str:
        training = self.training
        return fingerprint(
            teacher.weights_fingerprint(),
            self.corpus.digest,
            asdict(self.settings),
            training.batch,
            training.weight_decay,
            training.clip_norm,
            training.final_rate_share,
            self.seed,
            training.precision,
        )

    def _train(self, model: LoadedModel, directory: Path, *, checkpoint: Path) -> None:
        """Write the corrected teacher into `directory`."""
        source = model.source
        LOGGER.info(f"correction: the teacher reads {self.settings.tokens:,} tokens of the corpus")
        trained: Any = source.load(model.device)  # in fp32, whatever the teacher computes in
        correction = correct_teacher(
            trained,
            self.corpus,
            plan=CorrectionPlan(
                self.settings.learning_rate,
                self.training,
                self.seed,
                source.dtype,
                RunLimits(self.settings.tokens, 1, checkpoint, self.checkpoint_seconds),
            ),
        )
        weights = gathered_weights(trained, source.dtype)

        def fill(aside: Path) -> None:
            write_model(trained, weights, aside)
            finish_folder(aside, source)
            (aside / FACTS).write_text(json.dumps(_facts_of(correction), indent=2))

        write_directory_atomically(directory, fill)


def correction_facts(teacher: Path) -> dict[str, Any] | None:
    """What the correction of the teacher in that directory brought; None for any other teacher."""
    path = teacher / FACTS
    facts: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return facts


def _facts_of(correction: Correction) -> dict[str, Any]:
    return {
        "tokens": correction.tokens,
        "before": mean_interval([correction.before]).to_dict(),
        "after": mean_interval([correction.after]).to_dict(),
        "difference": difference_interval([correction.after], [correction.before]).to_dict(),
    }
