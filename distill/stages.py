"""Targets as a stage before students learn: which are needed, and written where missing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.corpus import Corpus
from distill.errors import DistillError
from distill.formats import FormatRequest, TargetFormat, choose_format, shown_bytes
from distill.losses import CROSS_ENTROPY, FORWARD_KL
from distill.order import slot_blocks
from distill.settings import LIVE, TrainingSettings
from distill.targets import SHARD_BLOCKS, TargetRequest, Targets, write_requested

Say = Callable[[str], None]


@dataclass(frozen=True)
class TargetSpace:
    """Disk that the targets of all splits may take together."""

    limit_gb: float
    """GB in all (--targets_gb)."""
    held_out_bytes: int
    """Bytes of those of selection and test."""

    def for_training(self) -> float:
        """Bytes left for training. Raises DistillError where the others take all."""
        left = self.limit_gb * 1e9 - self.held_out_bytes
        if left < 0:
            raise DistillError(
                f"the teacher's targets for selection and test need "
                f"{shown_bytes(self.held_out_bytes)}, above --targets_gb {self.limit_gb:g}; raise "
                "it, or lower --splits.selection_tokens or --splits.test_tokens"
            )
        return left


def training_format(
    settings: TrainingSettings, vocabulary: int, *, tokens: int, space: TargetSpace, seed: int
) -> TargetFormat | None:
    """How the targets of so many training tokens are stored; None where none are stored.

    Raises DistillError where they do not fit `space`.
    """
    left = space.for_training()
    if settings.targets == LIVE or settings.loss == CROSS_ENTROPY:
        return None
    request = FormatRequest(
        kind=settings.targets,
        topk=settings.topk,
        draws=settings.draws,
        temperature=settings.temperature,
        seed=seed,
        any_loss=settings.loss != FORWARD_KL,
    )
    return choose_format(
        request,
        vocabulary,
        tokens=tokens,
        limit_bytes=left,
        limit_name=f"what is left of --targets_gb {space.limit_gb:g},",
    )


def read_blocks(corpus: Corpus, tokens: int, *, batch: int, seed: int) -> "OrderedBlocks":
    """The training blocks that a run of `tokens` reads, in the order of their slots."""
    blocks = corpus.blocks("train")
    read = max(1, tokens // (batch * corpus.block)) * batch
    return OrderedBlocks(blocks, slot_blocks(len(blocks), seed)[: min(read, len(blocks))])


def stored_targets(
    teacher: Callable[[], Any], request: TargetRequest, *, split: str, say: Say
) -> Targets:
    """The targets that are requested; missing shards are written now.

    `teacher` is asked for the model only if something is missing; `split` names them in the lines
    that are said.
    """
    targets = Targets(request.directory)
    if request.directory.exists() and targets.is_complete(len(request.blocks)):
        targets.check_provenance(request.provenance)
        say(f"targets: {split} found")
        return targets
    block, total = request.blocks.shape[1], request.tokens
    say(
        f"targets: {split}, {request.target_format.describe_itself()}, {request.bytes / 1e6:,.0f} "
        f"MB in {-(-len(request.blocks) // SHARD_BLOCKS)} shards"
    )

    def progress(done: int, of: int, speed: float) -> None:
        if done < of:
            left = (of - done) * block / speed
            say(
                f"targets: {split} {done * block:,} of {total:,} tokens, {speed:,.0f} tokens/s, "
                f"{left:.0f} s left"
            )

    return write_requested(teacher(), request, progress=progress)


@dataclass(frozen=True)
class OrderedBlocks:
    """Rows of a memory-mapped array in another order, read when asked for."""

    rows: NDArray[Any]
    """Blocks [rows, block]."""
    order: NDArray[np.int64]
    """Number of the row in each place."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        """(blocks, tokens of a block)."""
        return (len(self.order), int(self.rows.shape[1]))

    def __getitem__(self, where: slice) -> NDArray[Any]:
        return self.rows[self.order[where]]
