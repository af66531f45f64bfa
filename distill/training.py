"""One training loop for short and full runs: forward KL from stored targets, exactly resumable.

It does not know what the student is or who asks for the run; it knows tokens, steps and a schedule.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from distill.checkpoint import load_training_state, save_training_state
from distill.errors import DistillError, TrainingDiverged
from distill.losses import bucketed_forward_kl
from distill.order import slot_blocks, slot_sequence
from distill.precision import PRECISIONS, autocast
from distill.targets import Targets

MINIMUM_STEPS = 400
SWEPT_PARAMETERS = 1.65e6
SWEPT_RATE = 1.6e-3
"""The best peak rate measured at `SWEPT_PARAMETERS`."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a student learns. The same settings serve short and full runs."""

    learning_rate: float | None = None
    """Peak learning rate; by default it follows the student's size (see `default_rate`)."""
    batch: int | None = None
    """Sequences per optimiser step; by default what gives a full run 400 steps, at most 64."""
    warmup_share: float = 0.05
    """Share of the steps that the learning rate takes to rise."""
    final_rate_share: float = 0.05
    """The learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    temperature: float = 1.0
    """Softmax temperature of teacher and student in the loss."""
    lm_weight: float = 0.0
    """Weight of the next-token cross-entropy that is added to the KL."""
    topk: int = 64
    """Entries of the teacher's distribution stored per training token; the rest is one bucket."""
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 where the hardware multiplies it."""

    def __post_init__(self) -> None:
        positive = ("clip_norm", "temperature", "topk", "learning_rate", "batch")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DistillError(f"{name} is {value}; it must be above zero")
        for name in ("warmup_share", "final_rate_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DistillError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("weight_decay", "lm_weight"):
            if getattr(self, name) < 0:
                raise DistillError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.precision not in PRECISIONS:
            raise DistillError(
                f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}"
            )


def default_batch(full_tokens: int, block: int) -> int:
    """Sequences per step that leave a full run at least 400 optimiser steps, at most 64."""
    return max(1, min(64, full_tokens // (block * MINIMUM_STEPS)))


def default_rate(parameters: int) -> float:
    """Peak learning rate for a student of so many parameters.

    Two power laws that meet at the larger size of the sweep in
    `experiments/benchmarks/learning_rate.py`: below it through the best rate of the smaller size,
    above it to the 1e-4 that Minitron (arXiv 2407.14679) uses at 4B parameters.
    """
    exponent = 0.9 if parameters < SWEPT_PARAMETERS else 0.36
    return min(4e-3, SWEPT_RATE * (parameters / SWEPT_PARAMETERS) ** -exponent)


@dataclass(frozen=True)
class TrainingData:
    """What every run of a study reads."""

    blocks: NDArray[Any]
    """Training tokens [blocks, block]."""
    targets: Targets
    seed: int
    """The study's seed: fixes which block a slot holds."""

    @property
    def block(self) -> int:
        return int(self.blocks.shape[1])


class Distillation:
    """One run: a student, its optimiser and how far it has come."""

    def __init__(
        self,
        student: nn.Module,
        data: TrainingData,
        settings: TrainingSettings,
        tokens: int,
        precision: str,
        shuffle: int = 0,
    ):
        assert settings.batch is not None, "the study resolves the batch"
        self.student = student
        self.data = data
        self.settings = settings
        self.precision = precision
        self.device = next(student.parameters()).device
        self.tokens_per_step = settings.batch * data.block
        self.total_steps = max(1, tokens // self.tokens_per_step)
        self.step = 0
        count = self.total_steps * settings.batch
        self._order = slot_blocks(len(data.blocks), data.seed)
        self._slots = slot_sequence(count, len(data.blocks), data.seed, shuffle)
        size = sum(p.numel() for p in student.parameters())
        self.peak_rate = settings.learning_rate or default_rate(size)
        matrices = [p for p in student.parameters() if p.ndim > 1]
        others = [p for p in student.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            lr=self.peak_rate,
            fused=self.device.type in ("cpu", "cuda"),
        )

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.tokens_per_step

    @property
    def total_tokens(self) -> int:
        return self.total_steps * self.tokens_per_step

    @property
    def finished(self) -> bool:
        return self.step >= self.total_steps

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`: warm-up, then cosine."""
        warmup = max(1, round(self.settings.warmup_share * self.total_steps))
        if step < warmup:
            return self.peak_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.total_steps - warmup)
        low = self.settings.final_rate_share
        return self.peak_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))

    def advance(self, steps: int, after_step: Callable[[], None] = lambda: None) -> float | None:
        """Train `steps` optimiser steps or to the end; returns their mean loss, None without any.

        Raises TrainingDiverged at a loss that is not finite.
        """
        self.student.train()
        losses = []
        for _ in range(min(steps, self.total_steps - self.step)):
            losses.append(self._one_step())
            after_step()
        return float(np.mean(losses)) if losses else None

    def _one_step(self) -> float:
        size = self.tokens_per_step // self.data.block
        slots = self._slots[self.step * size : (self.step + 1) * size]
        chosen = np.asarray(self.data.blocks[self._order[slots]]).astype(np.int64)
        blocks = torch.from_numpy(chosen).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        loss = self.loss(blocks, slots)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss became {value} at step {self.step + 1} of {self.total_steps} "
                f"(learning rate {self.rate(self.step):.2g}); lower --training.learning_rate"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return value

    def loss(self, blocks: Tensor, slots: NDArray[np.int64]) -> Tensor:
        """Mean loss per token of `blocks` [batch, sequence], whose targets are in `slots`."""
        target = self.data.targets.batch(slots, self.device)
        assert target.ids is not None, "training targets are stored as top-k"
        with autocast(self.device, self.precision):
            logits = self.student(input_ids=blocks, use_cache=False).logits
        kl = bucketed_forward_kl(
            logits.flatten(0, 1),
            target.ids.flatten(0, 1),
            target.log_probs.exp().flatten(0, 1),
            target.rest.flatten(),
            self.settings.temperature,
        )
        if not self.settings.lm_weight:
            return kl
        return kl + self.settings.lm_weight * functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), blocks[:, 1:].flatten()
        )

    def save(self, directory: Path, **meta: Any) -> None:
        """Write a checkpoint from which the run goes on exactly."""
        save_training_state(directory, self.student, self.optimizer, {"step": self.step, **meta})

    def restore(self, directory: Path) -> dict[str, Any]:
        """Go on from a checkpoint; returns what was saved beside it."""
        meta = load_training_state(directory, self.student, self.optimizer)
        self.step = meta["step"]
        return meta


class Throttle:
    """True at most once per `seconds`: for checkpoints and progress lines."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True
