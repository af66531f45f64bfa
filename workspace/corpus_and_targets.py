"""Targets of the teacher on a packed corpus: planned for all splits at once, stored once each."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import DistillError
from common.progress import counted, duration, tell
from distill import Evaluation, evaluate
from distill.backend import load
from distill.data import Corpus, slot_blocks
from distill.loss import CROSS_ENTROPY, FORWARD_KL
from distill.targets import (
    SHARD_BLOCKS,
    FormatRequest,
    TargetFormat,
    TargetRequest,
    Targets,
    choose_format,
    evaluation_format,
    shown_bytes,
    write_requested,
)
from distill.train import LIVE, ResolvedTraining
from workspace.pieces import Piece

LOGGER = logging.getLogger(__name__)
TRAIN, SELECTION, TEST = "train", "selection", "test"
"""The splits of a corpus."""


@dataclass(frozen=True)
class OrderedBlocks:
    """Rows of a memory-mapped array in another order, read when asked for."""

    rows: NDArray[Any]
    """Token ids [blocks, sequence]."""
    order: NDArray[np.int64]
    """Which of them comes at each place."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        """(places, tokens of a sequence)"""
        return (len(self.order), int(self.rows.shape[1]))

    def __getitem__(self, where: slice) -> NDArray[Any]:
        return self.rows[self.order[where]]


def read_blocks(corpus: Corpus, tokens: int, *, batch: int, seed: int) -> OrderedBlocks:
    """The training blocks that a run of `tokens` reads, in the order in which it reads them."""
    blocks = corpus.blocks(TRAIN)
    read = max(1, tokens // (batch * corpus.block)) * batch
    return OrderedBlocks(blocks, slot_blocks(len(blocks), seed)[: min(read, len(blocks))])


@dataclass(frozen=True)
class SplitTargets(TargetRequest):
    """The targets of one split, in the order of their blocks."""

    split: str = field(kw_only=True)
    """Its name in printed lines."""

    def stored(self, teacher: Callable[[], Any]) -> Targets:
        """The targets, of which what is missing is written now.

        `teacher` is asked for the model only if something is missing.
        """
        if self._found():
            return Targets(self.directory)
        length = int(self.blocks.shape[1])

        work, unit = f"targets of {self.split}", "tokens"
        tell(LOGGER, work=work, done=0.0, total=float(self.tokens), unit=unit)

        def progress(done: int, of: int, speed: float) -> None:
            tell(LOGGER, work=work, done=float(done * length), speed=speed)
            if done < of:
                LOGGER.info(
                    f"targets: {self.split} {done * length:,} of {self.tokens:,} tokens, "
                    f"{speed:,.0f} tokens/s, {duration((of - done) * length / speed)} left"
                )

        return write_requested(teacher(), self, progress=progress)

    def pieces(self) -> list[Piece]:
        """The shards that are yet to be written, each a piece that any process can compute. Raises
        DistillError where the directory holds something else."""
        if self._found():
            return []
        length, targets = int(self.blocks.shape[1]), Targets(self.directory)
        return [
            Piece(
                kind=f"targets of {self.split}",
                tokens=min(SHARD_BLOCKS, len(self.blocks) - index * SHARD_BLOCKS) * length,
                folder=targets.folder(index),
                passes=partial(self.shard, index),
            )
            for index in self.missing()
        ]

    def _found(self) -> bool:
        """Whether all is there; says so, or what is written now."""
        targets, count = Targets(self.directory), len(self.blocks)
        if self.directory.exists() and targets.is_complete(count):
            targets.check_provenance(self.provenance)
            LOGGER.info(f"targets: {self.split} found")
            return True
        LOGGER.info(
            f"targets: {self.split}, {self.target_format.describe_itself()}, "
            f"{self.bytes / 1e6:,.0f} MB in {counted(-(-count // SHARD_BLOCKS), 'shard')}"
        )
        return False


@dataclass(frozen=True)
class TargetNeeds:
    """Which targets a run needs, or all runs of a study together."""

    training: ResolvedTraining
    """Its batch, its loss and what it says of targets."""
    vocabulary: int
    """Tokens that teacher and student know."""
    tokens: int
    """Training tokens of the longest run."""
    limit_gb: float
    """Most disk for the targets of all splits (--targets_gb)."""
    seed: int
    """Fixes which blocks are read, and what is drawn."""

    def plan(
        self,
        corpus: Corpus,
        directory_of: Callable[[str, TargetFormat], Path],
        *,
        provenance: dict[str, str] | None = None,
    ) -> dict[str, SplitTargets]:
        """By split: selection, test and, unless the teacher is live or not asked, training.

        `directory_of` names where those of a split go. Raises DistillError where they do not fit
        the limit.
        """

        def of(split: str, blocks: Any, *, target_format: TargetFormat) -> SplitTargets:
            directory = directory_of(split, target_format)
            return SplitTargets(blocks, target_format, directory, provenance or {}, split=split)

        scored = evaluation_format(self.vocabulary)
        planned = {
            split: of(split, corpus.blocks(split), target_format=scored)
            for split in (SELECTION, TEST)
        }
        read = read_blocks(corpus, self.tokens, batch=self.training.batch, seed=self.seed)
        held_out = sum(targets.bytes for targets in planned.values())
        target_format = self.training_format(len(read) * corpus.block, held_out)
        if target_format is not None:
            planned[TRAIN] = of(TRAIN, read, target_format=target_format)
        return planned

    def training_format(self, tokens: int, held_out_bytes: int) -> TargetFormat | None:
        """How the targets of so many training tokens are stored, beside those of the held-out
        splits; None where none are. Raises DistillError where they do not fit the limit."""
        settings, limit = self.training, self.limit_gb
        left = limit * 1e9 - held_out_bytes
        if left < 0:
            raise DistillError(
                f"the teacher's targets for selection and test need {shown_bytes(held_out_bytes)}, "
                f"above --targets_gb {limit:g}; raise it, or lower --splits.selection_tokens or "
                "--splits.test_tokens"
            )
        if settings.targets == LIVE or settings.loss == CROSS_ENTROPY:
            return None
        request = FormatRequest(
            kind=settings.targets,
            topk=settings.topk,
            draws=settings.draws,
            temperature=settings.temperature,
            seed=self.seed,
            any_loss=settings.loss != FORWARD_KL,
        )
        return choose_format(
            request,
            self.vocabulary,
            tokens=tokens,
            limit_bytes=left,
            limit_name=f"what is left of --targets_gb {limit:g},",
        )


def evaluate_on_test_split(
    model: Path, corpus: Corpus, *, targets: Path, device: torch.device | str
) -> Evaluation:
    """The student in the folder `model`, in fp32, against the targets of the test split."""
    student = load(model, torch.float32).to(torch.device(device))
    blocks, weights = corpus.blocks(TEST), corpus.weights(TEST)
    return evaluate(student, blocks, targets=Targets(targets), weights=weights)
