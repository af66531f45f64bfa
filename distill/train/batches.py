"""Batches of a run: text in the study's order, with the teacher's targets."""

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.backend.parallel import World
from distill.backend.placing import placed
from distill.data.order import SlotSequence, slot_blocks
from distill.loss.live_teacher import LiveTeacher
from distill.loss.module import SupervisedBatch
from distill.loss.settings import StateSettings
from distill.targets.batch import TargetBatch
from distill.targets.store import Targets
from distill.train.settings import ResolvedTraining


@dataclass(frozen=True)
class TrainingData:
    """Text and teacher of a run, as arrays and models."""

    blocks: NDArray[Any]
    """Training tokens [blocks, block]."""
    targets: Targets | LiveTeacher | None
    """The teacher's answers, stored or live; None where the text alone is learnt."""
    seed: int
    """The study's seed: fixes which block a slot holds."""
    weights: NDArray[np.bool_] | None = None
    """Whether the prediction at a token counts [blocks, block]; None: all do."""
    shuffle: int = 0
    """Order in which the slots are read: 0 is the study's; others are replicates of it."""
    hidden_states: StateSettings | None = None
    """The hidden states of a live teacher that are learnt besides its distribution."""

    @property
    def block(self) -> int:
        """Tokens of a sequence."""
        return int(self.blocks.shape[1])


class BatchReader:
    """Reader of the batches of one process of a run, a forward pass at a time."""

    def __init__(
        self,
        data: TrainingData,
        training: ResolvedTraining,
        *,
        steps: int,
        world: World,
        device: torch.device,
    ):
        """Of a run of so many optimiser steps in all; batches are put on `device`."""
        self.data, self.training, self.world, self.device = data, training, world, device
        available = len(data.blocks)
        self._order = slot_blocks(available, data.seed)
        self._slots = SlotSequence(
            steps * training.batch, available, seed=data.seed, shuffle=data.shuffle
        )

    def slots(self, step: int) -> NDArray[np.int64]:
        """The slots that all processes together read in an optimiser step."""
        batch = self.training.batch
        return self._slots[step * batch : (step + 1) * batch]

    def micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """The slots of this process's forward passes in an optimiser step."""
        mine = np.split(self.slots(step), self.world.size)[self.world.rank]
        size = self.training.micro_batch or len(mine)
        return [mine[start : start + size] for start in range(0, len(mine), size)]

    def read(self, steps: range, hidden_layers: Collection[int]) -> Generator[SupervisedBatch]:
        """The batches of these steps, in order; stored targets are read ahead.

        They hold the live teacher's hidden states after `hidden_layers`.
        """
        targets = self.data.targets
        stored: Generator[TargetBatch] | None = None
        if isinstance(targets, Targets):
            coming = (slots for step in steps for slots in self.micro_batches(step))
            stored = self._stored(targets, coming)
        try:
            for step in steps:
                totals = self._token_weights(self.slots(step)).sum((0, 1))
                for slots in self.micro_batches(step):
                    chosen = np.asarray(self.data.blocks[self._order[slots]]).astype(np.int64)
                    blocks = placed(chosen, self.device)
                    weights = placed(self._token_weights(slots) / totals, self.device)
                    if stored is not None:
                        yield SupervisedBatch(blocks, weights, next(stored).tokens(), {})
                    elif isinstance(targets, LiveTeacher):
                        yield SupervisedBatch(
                            blocks, weights, *targets.answer(blocks, hidden_layers)
                        )
                    else:
                        yield SupervisedBatch(blocks, weights, None, {})
        finally:
            if stored is not None:
                stored.close()

    def _stored(
        self, targets: Targets, coming: Iterator[NDArray[np.int64]]
    ) -> Generator[TargetBatch]:
        """Stored targets, in order; ahead of the step only where that does not take its cores."""
        if self.device.type == "cpu":
            for slots in coming:
                yield targets.batch(slots, self.device)
        else:
            yield from targets.reading_ahead(coming, self.device)

    def _token_weights(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """How each token of these slots counts in distillation and text loss [n, block, 2]."""
        if self.data.weights is None:
            counted = np.ones((len(slots), self.data.block, 2), np.float32)
            counted[:, -1, 1] = 0  # the token after a block is not known
            return counted
        chosen = np.asarray(self.data.weights[self._order[slots]], np.float32)
        return np.stack([chosen, chosen], -1)
