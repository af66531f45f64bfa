"""What is computed once before a student learns, found again where it is there: targets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.data.corpus import Corpus
from distill.errors import DistillError
from distill.formats import TargetFormat, choose_format, shown_bytes
from distill.losses import CROSS_ENTROPY, FORWARD_KL
from distill.order import slot_blocks
from distill.settings import LIVE, TrainingSettings
from distill.targets import SHARD_BLOCKS, Targets, write_targets

Say = Callable[[str], None]


def training_format(
    settings: TrainingSettings,
    vocabulary: int,
    tokens: int,
    limit_gb: float,
    held_out_bytes: int,
    seed: int,
) -> TargetFormat | None:
    """How the targets of so many training tokens are stored; None where none are stored.

    Raises DistillError where they do not fit `limit_gb`, of which those of selection and test take
    `held_out_bytes`.
    """
    left = limit_gb * 1e9 - held_out_bytes
    if left < 0:
        raise DistillError(
            f"the teacher's targets for selection and test need {shown_bytes(held_out_bytes)}, "
            f"above --targets_gb {limit_gb:g}; raise it, or lower --splits.selection_tokens or "
            "--splits.test_tokens"
        )
    if settings.targets == LIVE or settings.loss == CROSS_ENTROPY:
        return None
    return choose_format(
        vocabulary,
        tokens,
        left,
        settings.targets,
        settings.topk,
        settings.draws,
        settings.temperature,
        seed,
        f"what is left of --targets_gb {limit_gb:g},",
        any_loss=settings.loss != FORWARD_KL,
    )


def read_blocks(corpus: Corpus, tokens: int, batch: int, seed: int) -> "OrderedBlocks":
    """The training blocks that a run of `tokens` reads, in the order of their slots."""
    blocks = corpus.blocks("train")
    read = max(1, tokens // (batch * corpus.block)) * batch
    return OrderedBlocks(blocks, slot_blocks(len(blocks), seed)[: min(read, len(blocks))])


def stored_targets(
    teacher: Callable[[], Any],
    split: str,
    blocks: Any,
    form: TargetFormat,
    directory: Path,
    say: Say,
    made_of: dict[str, str] | None = None,
) -> Targets:
    """The targets of `blocks` [slots, sequence] in `directory`, what is missing written now.

    `teacher` is asked for the model only if something is missing.
    """
    targets = Targets(directory)
    if directory.exists() and targets.holds(len(blocks)):
        targets.require(made_of or {})
        say(f"targets: {split} found")
        return targets
    block = blocks.shape[1]
    total = len(blocks) * block
    say(
        f"targets: {split}, {form.describe_itself()}, {total * form.bytes_per_token / 1e6:,.0f} MB "
        f"in {-(-len(blocks) // SHARD_BLOCKS)} shards"
    )

    def progress(done: int, of: int, speed: float) -> None:
        if done < of:
            left = (of - done) * block / speed
            say(
                f"targets: {split} {done * block:,} of {total:,} tokens, {speed:,.0f} tokens/s, "
                f"{left:.0f} s left"
            )

    return write_targets(teacher(), blocks, form, directory, progress=progress, made_of=made_of)


@dataclass(frozen=True)
class OrderedBlocks:
    """Rows of a memory-mapped array in another order, read when asked for."""

    rows: NDArray[Any]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.order), int(self.rows.shape[1]))

    def __getitem__(self, where: slice) -> NDArray[Any]:
        return self.rows[self.order[where]]
