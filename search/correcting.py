"""The teacher fitted to the corpus, kept in the workspace as a checkpoint of its own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from distill import Corpus
from distill.atomic import write_directory_atomically
from distill.correction import Correction, CorrectionPlan, CorrectionSettings, correct_teacher
from distill.limits import RunLimits
from distill.settings import ResolvedTraining
from distill.writing import gathered_weights, write_model
from search.statistics import difference_interval, mean_interval
from search.student_folder import finish_folder
from search.teacher import Teacher
from search.workspace import Workspace, fingerprint

FACTS = "correction.json"


@dataclass(frozen=True)
class Correcting:
    """What a corrected teacher depends on."""

    settings: CorrectionSettings
    training: ResolvedTraining
    """Its batch, precision and memory settings are used."""
    corpus: Corpus
    corpus_name: str
    seed: int
    precision: str
    device: torch.device
    checkpoint_seconds: float

    def teacher(self, given: Teacher, workspace: Workspace, say: Callable[[str], None]) -> Teacher:
        """The corrected teacher, trained now or before; `given` where no correction is wanted."""
        if not self.settings.tokens:
            return given
        name = fingerprint(
            given.weights_fingerprint(),
            self.corpus_name,
            asdict(self.settings),
            self.training.batch,
            self.training.weight_decay,
            self.training.clip_norm,
            self.training.final_rate_share,
            self.seed,
            self.precision,
        )
        directory = workspace.root / f"teacher-{name}"
        if not directory.exists():
            checkpoint = workspace.root / f"correction-{name}"
            say(f"correction: the teacher reads {self.settings.tokens:,} tokens of the corpus")
            limits = RunLimits(self.settings.tokens, 1, checkpoint, self.checkpoint_seconds)
            model: Any = given.load(self.device)
            found = correct_teacher(
                model,
                self.corpus,
                plan=CorrectionPlan(
                    self.settings.learning_rate, self.training, self.seed, given.dtype, limits
                ),
                say=say,
            )
            _write(model, given, found, directory)
            shutil.rmtree(checkpoint, ignore_errors=True)
        facts = correction_facts(directory)
        assert facts is not None
        before, after = (facts[name]["mean"] for name in ("before", "after"))
        say(f"teacher: corrected, selection cross-entropy {before:.4f} -> {after:.4f}")
        return Teacher.open(str(directory), prunable=given.known)


def correction_facts(teacher: Path) -> dict[str, Any] | None:
    """What the correction of the teacher in that directory brought; None for any other teacher."""
    path = teacher / FACTS
    facts: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return facts


def _write(model: Any, given: Teacher, found: Correction, directory: Path) -> None:
    facts = {
        "tokens": found.tokens,
        "before": mean_interval([found.before]).to_dict(),
        "after": mean_interval([found.after]).to_dict(),
        "difference": difference_interval([found.after], [found.before]).to_dict(),
    }
    weights = gathered_weights(model, given.dtype)

    def fill(aside: Path) -> None:
        write_model(model, weights, aside)
        finish_folder(aside, given)
        (aside / FACTS).write_text(json.dumps(facts, indent=2))

    write_directory_atomically(directory, fill)
