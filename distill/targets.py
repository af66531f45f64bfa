"""What the teacher says about the corpus, computed once and read by every run.

Stored in shards of blocks, memory-mapped: the distribution in one of the forms of
`distill.formats`, and the log-probability of the token that really came next. A shard is whole or
absent, so writing resumes after the last one; one whose checksum is wrong counts as absent.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.background import ahead
from distill.checkpoint import write_file_atomically
from distill.describe import describe, unpack_ids
from distill.errors import DistillError
from distill.formats import (
    FULL_VOCABULARY,
    TargetFormat,
    choose_format,
    evaluation_format,
)
from distill.shards import Arrays, array_shape, fault, open_shard, write_shard

__all__ = [
    "FULL_VOCABULARY",
    "SHARD_BLOCKS",
    "TargetBatch",
    "TargetFormat",
    "Targets",
    "blocks_at_once",
    "choose_format",
    "evaluation_format",
    "write_targets",
]

SHARD_BLOCKS = 128


@dataclass(frozen=True)
class TargetBatch:
    """Targets of some blocks: `ids` is None where the whole distribution is stored."""

    ids: Tensor | None
    """int64 [blocks, sequence, k]; drawn tokens and the k likeliest are by falling probability."""
    log_probs: Tensor
    """fp32 [blocks, sequence, k or vocab], the teacher's log-probability of each entry."""
    rest: Tensor
    """fp32 [blocks, sequence], the probability of all tokens without an entry; 0 for draws."""
    share: Tensor | None = None
    """Of drawn tokens only: fp32 [blocks, sequence, k], the share of the draws that fell on the
    entry; sums to 1 over k. Where fewer than k tokens were drawn, entries of share 0 follow, with
    id 0 and log-probability 0."""

    def tokens(self) -> "TargetBatch":
        """The same with one first dimension, [blocks * sequence], for blocks and sequence."""
        return self._each(lambda tensor: tensor.flatten(0, 1))

    def slice(self, start: int, stop: int) -> "TargetBatch":
        """`start` to `stop` of the first dimension; the memory is shared."""
        return self._each(lambda tensor: tensor[start:stop])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TargetBatch":
        return replace(
            self,
            ids=None if self.ids is None else change(self.ids),
            log_probs=change(self.log_probs),
            rest=change(self.rest),
            share=None if self.share is None else change(self.share),
        )


@dataclass(frozen=True)
class Targets:
    """A directory of target shards, in slots 0, 1, ... of one block each."""

    directory: Path

    @cached_property
    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.directory / "format.json").read_text())
        except (OSError, ValueError) as problem:
            raise self._unreadable(problem) from None
        return facts

    def _unreadable(self, problem: Exception) -> DistillError:
        return DistillError(
            f"{self.directory / 'format.json'} cannot be read ({problem}); give another folder or "
            "remove that one"
        )

    @cached_property
    def format(self) -> TargetFormat:
        fields = {name: value for name, value in self._facts.items() if name != "made_of"}
        try:
            return TargetFormat(**fields)
        except TypeError as problem:
            raise self._unreadable(problem) from None

    @property
    def made_of(self) -> dict[str, str]:
        """Fingerprints of what the targets depend on, by name, as they were given on writing."""
        made_of: dict[str, str] = self._facts.get("made_of", {})
        return made_of

    def require(self, made_of: dict[str, str]) -> None:
        """Raises DistillError where these targets were made of something else, or do not say."""
        silent = [name for name in made_of if name not in self.made_of]
        if silent:
            raise DistillError(
                f"{self.directory} does not say of which {' and '.join(silent)} its targets are; "
                "give another folder or remove it"
            )
        other = [name for name, value in made_of.items() if self.made_of[name] != value]
        if other:
            raise DistillError(
                f"{self.directory} holds targets of another {' and another '.join(other)}; give "
                "another folder or remove it"
            )

    @cached_property
    def _shards(self) -> dict[int, Arrays]:
        return {}

    @cached_property
    def _starts(self) -> dict[int, NDArray[np.int64]]:
        """Of drawn tokens, by shard: where the entries of each block begin, and the end."""
        return {}

    def folder(self, index: int) -> Path:
        return self.directory / f"{index:05d}"

    def holds(self, blocks: int) -> bool:
        """Whether the first `blocks` slots are all written and undamaged; reads all of them."""
        for index in range(-(-blocks // SHARD_BLOCKS)):
            wanted = min(SHARD_BLOCKS, blocks - index * SHARD_BLOCKS)
            if not self._holds_shard(index, wanted):
                return False
        return True

    def _holds_shard(self, index: int, wanted: int) -> bool:
        shape = array_shape(self.folder(index), "next")
        if shape is None or shape[0] < wanted:
            return False
        return fault(self.folder(index)) is None

    def _shard(self, index: int) -> Arrays:
        if index not in self._shards:
            arrays = open_shard(self.folder(index))
            if self.format.kind == "sampled":
                entries = arrays["lengths"].sum(-1, dtype=np.int64)
                self._starts[index] = np.concatenate([[0], entries.cumsum()])
            self._shards[index] = arrays
        return self._shards[index]

    def _rows(self, name: str, slots: NDArray[np.int64]) -> NDArray[Any]:
        rows = [self._shard(int(s) // SHARD_BLOCKS)[name][int(s) % SHARD_BLOCKS] for s in slots]
        return np.stack(rows)

    def batch(self, slots: NDArray[np.int64], device: torch.device) -> TargetBatch:
        """The targets of the blocks in `slots`, normalised against rounding.

        Raises DistillError where a shard is missing or damaged; each is checked when it is first
        opened.
        """
        if self.format.kind == "sampled":
            return self._drawn(slots, device)
        log_probs = torch.from_numpy(self._rows("log_probs", slots)).to(device).float()
        rest = torch.from_numpy(self._rows("rest", slots)).to(device)
        total = (log_probs.exp().sum(-1) + rest).log()
        ids = None
        if not self.format.full:
            packed = {name: self._rows(name, slots) for name in self._id_names}
            ids = torch.from_numpy(unpack_ids(packed)).to(device)
        return TargetBatch(
            ids=ids,
            log_probs=log_probs - total.unsqueeze(-1),
            rest=rest / total.exp(),
        )

    @property
    def _id_names(self) -> tuple[str, ...]:
        return ("ids", "high") if self.format.id_bytes > 2 else ("ids",)

    def _drawn(self, slots: NDArray[np.int64], device: torch.device) -> TargetBatch:
        lengths = self._rows("lengths", slots).astype(np.int64)
        packed = {name: self._entries(name, slots) for name in self._id_names}
        filled = np.arange(lengths.max(initial=0)) < lengths[..., None]

        def padded(values: NDArray[Any], dtype: torch.dtype) -> Tensor:
            whole = np.zeros(filled.shape, values.dtype)
            whole[filled] = values
            return torch.from_numpy(whole).to(device, dtype)

        return TargetBatch(
            ids=padded(unpack_ids(packed), torch.int64),
            log_probs=padded(self._entries("log_probs", slots), torch.float32),
            rest=torch.zeros(lengths.shape, device=device),
            share=padded(self._entries("counts", slots), torch.float32) / self.format.draws,
        )

    def _entries(self, name: str, slots: NDArray[np.int64]) -> NDArray[Any]:
        """The drawn tokens' entries of the blocks in `slots`, one after the other."""
        pieces = []
        for slot in slots:
            index, row = divmod(int(slot), SHARD_BLOCKS)
            array = self._shard(index)[name]
            start, stop = self._starts[index][row : row + 2]
            pieces.append(array[start:stop])
        return np.concatenate(pieces)

    def reading_ahead(
        self, slots: Iterable[NDArray[np.int64]], device: torch.device, depth: int = 2
    ) -> Iterator[TargetBatch]:
        """`batch` of each array of slots, in order; a thread reads the next `depth` meanwhile.

        Close it (`contextlib.closing`) where it is not read to its end.
        """
        return ahead(lambda chosen: self.batch(chosen, device), slots, depth)

    def next_log_probs(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """[blocks, sequence], of the token that really came next; 0 at the end of a block."""
        return self._rows("next", slots)


def blocks_at_once(block: int, vocabulary: int) -> int:
    """Blocks whose logits take at most 256 MB in fp32, at most 16."""
    return max(1, min(16, 2**26 // (block * vocabulary)))


def write_targets(
    model: nn.Module,
    blocks: NDArray[Any],
    form: TargetFormat,
    directory: Path,
    batch: int | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
    made_of: dict[str, str] | None = None,
    precision: str = "fp32",
) -> Targets:
    """Write the targets of `blocks` [slots, sequence], or what is still missing of them.

    `progress` gets (blocks done, blocks in all, tokens per second) as shards reach the disk. A last
    shard that was shorter is written again when more blocks are asked for, and so is one that is
    damaged. `made_of` names what the targets depend on, with a fingerprint of each (teacher,
    corpus), for `Targets.require`; `precision` ("fp32" or "bf16") is that of the teacher's pass.
    While one shard is stored, the next is computed. Raises DistillError where `directory` holds
    targets in another format, of something else or of blocks of another length.
    """
    targets = _opened(directory, form, made_of)
    batch = batch or blocks_at_once(blocks.shape[1], form.vocabulary)
    missing = _missing(targets, blocks)
    started, computed = time.monotonic(), 0

    def finish(written: Future[None], index: int) -> None:
        nonlocal computed
        written.result()
        done = min(len(blocks), (index + 1) * SHARD_BLOCKS)
        computed += done - index * SHARD_BLOCKS
        progress(done, len(blocks), computed * blocks.shape[1] / (time.monotonic() - started))

    under_way: tuple[Future[None], int] | None = None
    with ThreadPoolExecutor(1, "targets") as writer:
        for index in missing:
            pieces = _pieces(model, blocks, form, index, batch, precision)
            if under_way:
                finish(*under_way)
            under_way = writer.submit(write_shard, targets.folder(index), pieces), index
        if under_way:
            finish(*under_way)
    return targets


def _opened(directory: Path, form: TargetFormat, made_of: dict[str, str] | None) -> Targets:
    """The directory, begun where it is new, and held against what is asked for where it is not."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "format.json").exists():
        facts = asdict(form) | ({"made_of": made_of} if made_of else {})
        write_file_atomically(directory / "format.json", json.dumps(facts))
    targets = Targets(directory)
    if targets.format != form:
        raise DistillError(f"{directory} holds {targets.format}, not {form}; give another folder")
    targets.require(made_of or {})
    return targets


def _missing(targets: Targets, blocks: NDArray[Any]) -> list[int]:
    """The shards that are yet to be written."""
    missing = []
    for index in range(-(-len(blocks) // SHARD_BLOCKS)):
        shape = array_shape(targets.folder(index), "next")
        if shape is not None and shape[1] != blocks.shape[1]:
            raise DistillError(
                f"{targets.directory} holds targets of blocks of {shape[1]} tokens, not "
                f"{blocks.shape[1]}; give another folder"
            )
        if not targets._holds_shard(index, min(SHARD_BLOCKS, len(blocks) - index * SHARD_BLOCKS)):
            missing.append(index)
    return missing


def _pieces(
    model: nn.Module,
    blocks: NDArray[Any],
    form: TargetFormat,
    index: int,
    batch: int,
    precision: str,
) -> list[Arrays]:
    """The arrays of one shard, computed `batch` blocks at a time."""
    device = next(model.parameters()).device
    wanted = blocks[index * SHARD_BLOCKS : (index + 1) * SHARD_BLOCKS]
    pieces = []
    for start in range(0, len(wanted), batch):
        ids = torch.from_numpy(wanted[start : start + batch].astype(np.int64)).to(device)
        pieces.append(describe(model, ids, form, index * SHARD_BLOCKS + start, precision))
    return pieces
