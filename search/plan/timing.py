"""Pace of a run on this machine, by a few steps of random weights."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig

from distill import LiveTeacher, slot_blocks
from distill.targets import TargetFormat, Targets, write_targets
from distill.train import ResolvedTraining, TrainingData
from pruning import architecture_of
from pruning.families import LayerShares, forward_flops, kinds_of, training_flops
from search.finals.outlook import TIMED_STEPS, WARM_UP_STEPS, Pace
from search.needs.random_teacher import RandomTeacher, random_model


@dataclass(frozen=True, kw_only=True)
class RandomRun:
    """A run whose student and teacher have random weights."""

    student: PretrainedConfig
    """Configuration of the student."""
    teacher: RandomTeacher
    """What it learns from."""
    training: ResolvedTraining
    """How the student learns."""
    block: int
    """Tokens of a sequence."""
    targets: TargetFormat | None
    """How the teacher's answers are stored; None where they are not."""
    live: bool
    """Whether the teacher runs beside the student."""

    @property
    def flops_per_token(self) -> float:
        """Operations of training, and of a live teacher."""
        own = training_flops(self.student, architecture_of(self.student), self.block)
        whole = self.teacher.config
        return own + self.live * float(forward_flops(whole, architecture_of(whole), self.block))

    def pace(self) -> Pace:
        """Of its training, without evaluations. Raises what training raises."""
        device = self.teacher.device
        student = random_model(self.student, torch.float32, device)
        try:
            with self._data() as data:
                return Pace.of_steps(student, data, self.training, tokens=1)
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()

    @contextmanager
    def _data(self) -> Iterator[TrainingData]:
        """Random text, with answers of a random teacher."""
        count = (WARM_UP_STEPS + TIMED_STEPS) * self.training.batch
        blocks = self.teacher.blocks(count, self.block)
        if self.live:
            yield TrainingData(blocks, self._live(), 0)
        elif self.targets is None:
            yield TrainingData(blocks, None, 0)
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_targets(
                    self.teacher.small(),
                    blocks[slot_blocks(count, 0)],
                    target_format=self.targets,
                    directory=Path(folder),
                )
                yield TrainingData(blocks, Targets(Path(folder)), 0)

    def _live(self) -> LiveTeacher:
        training = self.training
        return LiveTeacher(
            self.teacher.model(),
            self.teacher.config.vocab_size,
            temperature=training.temperature,
            precision=training.precision,
        )


def some_layers(teacher: PretrainedConfig, count: int, shares: LayerShares) -> list[int]:
    """So many layers of a teacher, of each kind its share: as a student keeps, whichever matter."""
    kinds = kinds_of(teacher)
    left = {kind: int(counts[count]) for kind, counts in shares.counts(kinds).items()}
    kept = []
    for layer, kind in enumerate(kinds):
        if left[kind]:
            left[kind] -= 1
            kept.append(layer)
    return kept
