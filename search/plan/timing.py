"""Speed of a run and of its teacher on this machine, by a few steps of random weights.

No time depends on the weights, but for targets that are drawn: the teacher here is undecided, so
that hardly a draw repeats another.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from distill import LiveTeacher, slot_blocks
from distill.loss import with_fast_products
from distill.targets import TargetFormat, Targets, write_targets
from distill.train import ResolvedTraining, TrainingData
from pruning.families import LayerShares, kinds_of
from search.finals.outlook import TIMED_STEPS, WARM_UP_STEPS, Pace

READ_BLOCKS = 8
"""Sequences that the teacher reads while it is timed."""


@dataclass(frozen=True, kw_only=True)
class RandomRun:
    """A run whose student and teacher have random weights."""

    student: PretrainedConfig
    """Configuration of the student."""
    teacher: PretrainedConfig
    """Configuration of the teacher."""
    teacher_dtype: torch.dtype
    """Type that the teacher computes in."""
    training: ResolvedTraining
    """How the student learns."""
    block: int
    """Tokens of a sequence."""
    targets: TargetFormat | None
    """How the teacher's answers are stored; None where they are not."""
    live: bool
    """Whether the teacher runs beside the student."""
    device: torch.device
    """Where both are."""

    def pace(self, threads: int) -> Pace:
        """Of its training on so many threads, without evaluations. Raises what training raises."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            student = self._model(self.student, torch.float32)
            with self._data() as data:
                return Pace.of_steps(student, data, self.training, tokens=1)
        finally:
            torch.set_num_threads(before)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def reading_seconds(self) -> float:
        """Seconds that the teacher takes for a token: forward, and its targets where they are
        stored."""
        teacher = self._teacher()
        form = self.targets or TargetFormat(self.teacher.vocab_size, 1)
        with tempfile.TemporaryDirectory() as folder:
            write_targets(
                teacher, self._blocks(1), target_format=form, directory=Path(folder) / "first"
            )
            begun = time.monotonic()
            write_targets(
                teacher,
                self._blocks(READ_BLOCKS),
                target_format=form,
                directory=Path(folder) / "timed",
            )
        return (time.monotonic() - begun) / (READ_BLOCKS * self.block)

    @contextmanager
    def _data(self) -> Iterator[TrainingData]:
        """Random text, with answers of a random teacher."""
        count = (WARM_UP_STEPS + TIMED_STEPS) * self.training.batch
        blocks = self._blocks(count)
        if self.live:
            yield TrainingData(blocks, self._live(self._teacher()), 0)
            return
        if self.targets is None:
            yield TrainingData(blocks, None, 0)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_targets(
                self._small_teacher(),
                blocks[slot_blocks(count, 0)],
                target_format=self.targets,
                directory=Path(folder),
            )
            yield TrainingData(blocks, Targets(Path(folder)), 0)

    def _live(self, model: Any) -> LiveTeacher:
        training = self.training
        return LiveTeacher(
            model,
            self.teacher.vocab_size,
            temperature=training.temperature,
            precision=training.precision,
        )

    def _blocks(self, count: int) -> NDArray[np.uint32]:
        shape, vocabulary = (count, self.block), self.teacher.vocab_size
        return np.random.default_rng(0).integers(0, vocabulary, shape).astype(np.uint32)

    def _teacher(self) -> Any:
        return with_fast_products(self._model(self.teacher, self.teacher_dtype).eval())

    def _model(self, config: PretrainedConfig, dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        with torch.device(self.device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)

    def _small_teacher(self) -> Any:
        """One that answers with as many tokens, and takes no time."""
        small = LlamaConfig(
            vocab_size=self.teacher.vocab_size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            bos_token_id=None,
            eos_token_id=None,
        )
        return self._model(small, torch.float32).eval()


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
