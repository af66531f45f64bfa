"""Assets of a run: paths and plain values, so that any process can take the run up."""

from dataclasses import dataclass
from pathlib import Path

import torch

from distill.backend.loading import load
from distill.data.corpus import Corpus
from distill.evaluation.scores import HeldOut
from distill.loss.live_teacher import LiveTeacher
from distill.loss.names import CROSS_ENTROPY
from distill.loss.products import with_fast_products
from distill.targets.store import Targets
from distill.train.settings import ResolvedTraining
from distill.train.trainer import TrainingData


@dataclass(frozen=True, kw_only=True)
class Assets:
    """Corpus, targets, teacher and settings of a run; a process opens only what it needs."""

    corpus: Path
    """Directory of the packed corpus."""
    training_targets: Path | None
    """Directory of the stored targets of the training split; None where the teacher runs beside the
    student, or nothing is asked of it."""
    selection_targets: Path
    """Directory of the stored targets of the selection split."""
    test_targets: Path
    """Directory of the stored targets of the test split."""
    teacher: Path
    """Checkpoint of the teacher; its weights are loaded only where no targets are stored."""
    vocabulary: int
    """Tokens that teacher and student know."""
    training: ResolvedTraining
    """How students learn."""
    seed: int
    """Fixes which sequence each place in the order of training holds."""
    device: str
    """Device that students train on, as torch names it."""
    teacher_dtype: str = "float32"
    """Type that a teacher beside the student is held in, as torch names it; in bf16 training
    bfloat16."""

    @property
    def live(self) -> bool:
        """Whether the teacher reads beside the student."""
        return self.training_targets is None and self.training.loss != CROSS_ENTROPY

    def training_data(
        self, *, states: bool = False, teacher_device: torch.device | str | None = None
    ) -> TrainingData:
        """The training split with the teacher's answers, stored or live.

        Args:
            states: Whether the teacher's hidden states are asked for, which are never stored.
            teacher_device: Device of a teacher beside the student; by default the student's.
        """
        corpus = Corpus(self.corpus)
        targets: Targets | LiveTeacher | None = None
        if self.training_targets is not None:
            targets = Targets(self.training_targets)
        elif self.live or states:
            targets = self.live_teacher(teacher_device)
        return TrainingData(corpus.blocks("train"), targets, self.seed, corpus.weights("train"))

    def held_out(self) -> HeldOut:
        """The selection split with the teacher's answers."""
        return HeldOut.of(Corpus(self.corpus), "selection", self.selection_targets)

    def live_teacher(self, device: torch.device | str | None = None) -> LiveTeacher:
        """The teacher to run beside a student, on `device` or on the student's, in the type that it
        computes in: bf16, or else `teacher_dtype`."""
        training = self.training
        narrow = training.precision == "bf16"
        model = load(self.teacher, torch.bfloat16 if narrow else getattr(torch, self.teacher_dtype))
        model = with_fast_products(model.to(torch.device(device or self.device)))
        return LiveTeacher(
            model,
            self.vocabulary,
            temperature=training.temperature,
            precision=training.precision,
        )
