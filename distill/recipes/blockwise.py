"""Block-wise local distillation: every decoder layer of a student learns alone.

As in Puzzle (arXiv 2411.19146): a block, which is one decoder layer, reads what its parent reads in
the teacher and is trained on the normalised error MSE(parent, child) / MSE(parent, 0) of its
output, whatever the other blocks do. It mends a cut student quickly, before distillation on the
logits.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import DistillError, TrainingDiverged
from distill.backend.layers import (
    base_of,
    decoder_layers,
    feeding,
    input_device,
    recording,
)
from distill.backend.precision import around_steps, autocast
from distill.data.order import SlotSequence, slot_blocks
from distill.recipes.block_map import BlockMap
from distill.train.batches import TrainingData
from distill.train.checkpoint import TrainingState
from distill.train.optimizers import clip_gradients, make_optimizer
from distill.train.schedule import Schedule, Steps
from distill.train.settings import TrainingSettings, default_rate

RATE_FACTOR = 2.5
"""The best peak rate of the blocks over that of distillation, measured on two cuts of the demo's
teacher (50 % and 30 % of its parameters, 65,536 tokens)."""


def block_rate(parameters: int) -> float:
    """Peak learning rate of the blocks of a student of so many parameters."""
    return RATE_FACTOR * default_rate(parameters)


@dataclass(frozen=True)
class BlockwiseSettings:
    """How the blocks learn."""

    tokens: int
    """Training tokens."""
    learning_rate: float | None = None
    """Peak learning rate; by default 2.5 times that of distillation for the student's size."""
    batch: int | None = None
    """Sequences per optimiser step; by default what gives 400 steps, at most 64."""
    warmup_share: float = 0.05
    """Share of the steps that the learning rate takes to rise."""
    final_rate_share: float = 0.05
    """The learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip_norm: float = 1.0
    """The gradient of each block is scaled down to this norm."""
    absorb_dropped: bool = True
    """A block also does the work of the layers that were dropped behind it (the first one, of those
    before it too): it learns the stream that enters the next kept layer, so that every block reads
    what the one before it learns to give. Else each learns its own parent alone."""
    precision: str = "fp32"
    """That of the forward passes: bf16, tf32 or fp32."""

    def __post_init__(self) -> None:
        if not self.tokens > 0:
            raise DistillError(f"tokens is {self.tokens}; it must be above zero")
        _ = self.training  # raises DistillError for what makes no sense

    @property
    def training(self) -> TrainingSettings:
        """The same for the parts that distillation shares."""
        return TrainingSettings(
            learning_rate=self.learning_rate,
            batch=self.batch,
            warmup_share=self.warmup_share,
            final_rate_share=self.final_rate_share,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )


class BlockAlignment(Steps):
    """Run of block-wise distillation: a student, the optimiser of its layers, and its progress.

    Only the decoder layers are trained, and every token of the data counts. The models may be on
    different devices.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        mapping: BlockMap,
        data: TrainingData,
        settings: BlockwiseSettings,
    ):
        """Raises DistillError where the map does not fit the models.

        Args:
            student: The model whose layers are trained in place.
            teacher: The model that it was cut from.
            mapping: Which of the teacher's layers and channels the student has.
            data: The training tokens and the seed of their order; no targets are read.
            settings: How the blocks learn.
        """
        mapping.check(student, teacher)
        self.student, self.teacher = student, teacher
        self.data = data
        self.settings = settings
        self.before_step: Callable[[int], None] = lambda step: None
        """Called with the number of each step, counted from 0, before it: may choose at which sizes
        the student's layers run in it."""
        self.precision = settings.precision
        self.layers = decoder_layers(student)
        self.device = next(student.parameters()).device
        depth = len(decoder_layers(teacher))
        self._inputs = mapping.inputs(settings.absorb_dropped)
        self._outputs = mapping.outputs(depth, settings.absorb_dropped)
        self._channels = torch.tensor(mapping.channels)
        self.training = settings.training.resolved(
            settings.tokens, data.block, precision=settings.precision
        )
        self.batch = self.training.batch
        self.tokens_per_step = self.batch * data.block
        self.total_steps = max(1, settings.tokens // self.tokens_per_step)
        self.step = 0
        self.block_losses: list[float] = []
        """The normalised error of every block at the last step."""
        self.stopped: set[int] = set()
        """Blocks that learn no more."""
        available = len(data.blocks)
        self._order = slot_blocks(available, data.seed)
        self._slots = SlotSequence(self.total_steps * self.batch, available, seed=data.seed)
        size = sum(p.numel() for p in student.parameters())
        self.peak_rate = settings.learning_rate or block_rate(size)
        self.schedule = Schedule(self.training, self.peak_rate, self.total_steps)
        self.optimizer = make_optimizer(self.layers, self.training, self.peak_rate)

    def advance(self, steps: int, after_step: Callable[[], None] = lambda: None) -> float | None:
        """Train `steps` optimiser steps or to the end.

        Returns the mean loss of a block over them, None without any. Raises TrainingDiverged at a
        loss that is not finite.
        """
        losses = []
        with around_steps(self.device, self.precision):
            for _ in range(min(steps, self.total_steps - self.step)):
                if self.finished:
                    break
                losses.append(self._one_step())
                after_step()
        return float(np.mean(losses)) if losses else None

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or no block learns any more."""
        return super().finished or len(self.stopped) == len(self.layers)

    @property
    def learning(self) -> list[int]:
        """The blocks that learn."""
        return [index for index in range(len(self.layers)) if index not in self.stopped]

    def _one_step(self) -> float:
        slots = self._slots[self.step * self.batch : (self.step + 1) * self.batch]
        chosen = np.asarray(self.data.blocks[self._order[slots]]).astype(np.int64)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.before_step(self.step)
        losses = self.backward(torch.from_numpy(chosen)).tolist()
        for index in self.learning:
            loss = losses[index]
            norm = float(clip_gradients(self.layers[index], self.settings.clip_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.optimizer.zero_grad()
                raise TrainingDiverged(self._diverged(index, loss))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.block_losses = losses
        return float(np.mean(losses))

    def _diverged(self, layer: int, loss: float) -> str:
        finite = math.isfinite(loss)
        what = "gradient of block {} is not finite at loss" if finite else "loss of block {} became"
        return (
            f"the {what.format(layer)} {loss} at step {self.step + 1} of {self.total_steps} "
            f"(learning rate {self.rate(self.step):.2g}); lower the learning rate of the blocks"
        )

    def backward(self, ids: Tensor) -> Tensor:
        """Add the gradient on `ids` [batch, sequence] of every block that learns; returns the
        losses of all [layers].

        A block's loss reaches its own parameters only, so one backward pass serves them all.
        """
        parents = self._parent_states(ids)
        with self._fed(parents):
            losses = self._losses(ids, parents)
            torch.stack([losses[index] for index in self.learning]).sum().backward()
        return torch.stack(losses).detach()

    @torch.no_grad()
    def errors(self, ids: Tensor, arrangements: Iterable[Callable[[], object]]) -> Tensor:
        """The normalised errors of the blocks on `ids` [batch, sequence], after each of the
        `arrangements`, which may choose other sizes of them: [arrangements, layers]."""
        parents = self._parent_states(ids)
        found = []
        with self._fed(parents):
            for arrange in arrangements:
                arrange()
                found.append(torch.stack(self._losses(ids, parents)))
        return torch.stack(found)

    def _fed(self, parents: dict[int, Tensor]) -> AbstractContextManager[None]:
        """Inside, every block reads what its parent does."""
        _train_without_dropout(self.student, self.layers)
        fed = {index: parents[source] for index, source in enumerate(self._inputs)}
        return feeding(self.student, fed)

    def _losses(self, ids: Tensor, parents: dict[int, Tensor]) -> list[Tensor]:
        """Of every block; they must be fed."""
        with (
            recording(self.student, range(len(self.layers))) as children,
            autocast(self.device, self.precision),
        ):
            base_of(self.student)(input_ids=ids.to(self.device), use_cache=False)
        return [
            normalised_error(parents[goal], children[index]).to(self.device)
            for index, goal in enumerate(self._outputs)
        ]

    @torch.no_grad()
    def _parent_states(self, ids: Tensor) -> dict[int, Tensor]:
        """The kept channels [batch, sequence, student hidden] of the stream after layers."""
        teacher = self.teacher.eval()
        device = input_device(teacher)
        with (
            recording(teacher, {*self._inputs, *self._outputs}) as states,
            autocast(device, self.precision),
        ):
            base_of(teacher)(input_ids=ids.to(device), use_cache=False)
        return {
            index: state.index_select(-1, self._channels.to(state.device))
            for index, state in states.items()
        }

    def save(self, directory: Path, **meta: Any) -> None:
        """Write a checkpoint from which the run goes on exactly."""
        here: dict[str, Any] = {"step": self.step, "block_losses": self.block_losses}
        if self.stopped:
            here["stopped"] = sorted(self.stopped)
        self._state.save(directory, {**here, **meta})

    def restore(self, directory: Path) -> dict[str, Any]:
        """Go on from a checkpoint; returns its `meta`."""
        meta = self._state.load(directory)
        self.step, self.block_losses = meta["step"], meta["block_losses"]
        self.stopped = set(meta.get("stopped", ()))
        return meta

    @property
    def _state(self) -> TrainingState:
        return TrainingState(self.student, self.optimizer)


def normalised_error(parent: Tensor, child: Tensor) -> Tensor:
    """MSE(parent, child) / MSE(parent, 0) in fp32, of two tensors of one shape."""
    goal = parent.to(child.device).float()
    return (child.float() - goal).square().mean() / goal.square().mean().clamp_min(1e-30)


def _train_without_dropout(student: nn.Module, layers: nn.ModuleList) -> None:
    """A block's goal has no noise, so it has none; the layer itself must train to checkpoint."""
    student.eval()
    for layer in layers:
        layer.training = True
