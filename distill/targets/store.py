"""Store of teacher targets on a corpus, computed once and read by every run.

Stored in shards of blocks, memory-mapped: the distribution in one of the formats of
`distill.targets.formats`, and the log-probability of the token that really came next. A shard is
whole or absent, so writing resumes after the last one; one whose checksum is wrong counts as
absent.
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import DistillError
from common.files import write_file_atomically
from distill.targets.batch import TargetBatch
from distill.targets.encode import SHARD_BLOCKS, ShardText
from distill.targets.formats import TargetFormat
from distill.targets.prefetch import ahead
from distill.targets.shards import NEXT, ShardSeries, array_shape, validate_shard, write_shard

_FORMAT_FILE, _PROVENANCE = "format.json", "made_of"
Progress = Callable[[int, int, float], None]
"""Takes blocks done, blocks in all and tokens per second."""


@dataclass(frozen=True)
class Targets:
    """A directory of target shards, in slots 0, 1, ... of one block each."""

    directory: Path
    """Holds format.json and a folder per shard."""

    @cached_property
    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.directory / _FORMAT_FILE).read_text())
        except (OSError, ValueError) as problem:
            raise self._unreadable(problem) from None
        return facts

    def _unreadable(self, problem: Exception) -> DistillError:
        return DistillError(
            f"{self.directory / _FORMAT_FILE} cannot be read ({problem}); give another folder or "
            "remove that one"
        )

    @cached_property
    def format(self) -> TargetFormat:
        """How the distributions are stored. Raises DistillError where that cannot be read."""
        fields = {name: value for name, value in self._facts.items() if name != _PROVENANCE}
        try:
            return TargetFormat(**fields)
        except TypeError as problem:
            raise self._unreadable(problem) from None

    @property
    def provenance(self) -> dict[str, str]:
        """Fingerprints of all that the targets depend on, by name, as given on writing."""
        provenance: dict[str, str] = self._facts.get(_PROVENANCE, {})
        return provenance

    def check_provenance(self, wanted: Mapping[str, str]) -> None:
        """Raises DistillError where these targets were made of something else, or do not say."""
        silent = [name for name in wanted if name not in self.provenance]
        if silent:
            raise DistillError(
                f"{self.directory} does not say of which {' and '.join(silent)} its targets are; "
                "give another folder or remove it"
            )
        other = [name for name, value in wanted.items() if self.provenance[name] != value]
        if other:
            raise DistillError(
                f"{self.directory} holds targets of another {' and another '.join(other)}; give "
                "another folder or remove it"
            )

    @cached_property
    def _shards(self) -> ShardSeries:
        return ShardSeries(self.directory, SHARD_BLOCKS)

    def folder(self, index: int) -> Path:
        """Directory of a shard."""
        return self._shards.folder(index)

    def is_complete(self, blocks: int) -> bool:
        """Whether the first `blocks` slots are all written and undamaged; reads all of them."""
        return all(self._holds_shard(*shard) for shard in _shard_sizes(blocks))

    def _holds_shard(self, index: int, wanted: int) -> bool:
        shape = array_shape(self.folder(index), NEXT)
        if shape is None or shape[0] < wanted:
            return False
        return validate_shard(self.folder(index)) is None

    def batch(self, slots: NDArray[np.int64], device: torch.device) -> TargetBatch:
        """The targets of the blocks in `slots`, normalised against rounding.

        Raises DistillError where a shard is missing or damaged; each is checked when it is first
        opened.
        """
        return self.format.codec.decode(self._shards, slots, device)

    def reading_ahead(
        self, slots: Iterable[NDArray[np.int64]], device: torch.device, depth: int = 2
    ) -> Generator[TargetBatch]:
        """`batch` of each array of slots, in order; a thread reads the next `depth` meanwhile.

        Close it (`contextlib.closing`) where it is not read to its end.
        """
        return ahead(lambda chosen: self.batch(chosen, device), slots, depth)

    def next_log_probs(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """[blocks, sequence], of the token that really came next; 0 at the end of a block."""
        return self._shards.rows(NEXT, slots)


def _shard_sizes(blocks: int) -> list[tuple[int, int]]:
    """(number, blocks) of each shard of so many blocks."""
    return [
        (index, min(SHARD_BLOCKS, blocks - index * SHARD_BLOCKS))
        for index in range(-(-blocks // SHARD_BLOCKS))
    ]


@dataclass(frozen=True)
class TargetRequest:
    """Targets that are wanted: of which blocks, in which format, and where."""

    blocks: Any
    """Tokens [slots, sequence], an array or what is sliced like one."""
    target_format: TargetFormat
    """How they are stored."""
    directory: Path
    """Where they go."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What they depend on, with a fingerprint of each (teacher, corpus); kept beside them."""

    @property
    def tokens(self) -> int:
        """Tokens that are answered."""
        return len(self.blocks) * int(self.blocks.shape[1])

    @property
    def bytes(self) -> int:
        """Bytes on disk, at most."""
        return self.tokens * self.target_format.bytes_per_token

    def shard(self, index: int) -> ShardText:
        """The text of one shard, read now: all that its targets are computed from."""
        first = index * SHARD_BLOCKS
        blocks = np.asarray(self.blocks[first : first + SHARD_BLOCKS])
        return ShardText(blocks, self.target_format, first)

    def missing(self) -> list[int]:
        """The shards that are yet to be written; the directory is begun where it is new.

        A last shard that was shorter is written again when more blocks are asked for, and so is one
        that is damaged. Raises DistillError as `opened` does, and where the directory holds targets
        of blocks of another length.
        """
        targets, length = self.opened(), self.blocks.shape[1]
        missing = []
        for index, size in _shard_sizes(len(self.blocks)):
            shape = array_shape(targets.folder(index), NEXT)
            if shape is not None and shape[1] != length:
                raise DistillError(
                    f"{targets.directory} holds targets of blocks of {shape[1]} tokens, not "
                    f"{length}; give another folder"
                )
            if not targets._holds_shard(index, size):
                missing.append(index)
        return missing

    def opened(self) -> Targets:
        """The directory, begun where it is new.

        Raises DistillError where it holds targets in another format or of something else.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / _FORMAT_FILE).exists():
            facts = asdict(self.target_format)
            if self.provenance:
                facts[_PROVENANCE] = dict(self.provenance)
            write_file_atomically(self.directory / _FORMAT_FILE, json.dumps(facts))
        targets = Targets(self.directory)
        if targets.format != self.target_format:
            raise DistillError(
                f"{self.directory} holds {targets.format}, not {self.target_format}; give another "
                "folder"
            )
        targets.check_provenance(self.provenance)
        return targets


def write_targets(
    model: nn.Module,
    blocks: NDArray[Any],
    *,
    target_format: TargetFormat,
    directory: Path,
    precision: str = "fp32",
) -> Targets:
    """Write the targets of `blocks` [slots, sequence], or the shards that are still missing.

    `precision` ("fp32" or "bf16") is that of the teacher's pass. Raises what `write_requested`
    raises.
    """
    request = TargetRequest(blocks, target_format, directory)
    return write_requested(model, request, precision=precision)


def write_requested(
    model: nn.Module,
    request: TargetRequest,
    *,
    precision: str = "fp32",
    progress: Progress = lambda done, total, speed: None,
) -> Targets:
    """Write the targets that are requested, or the shards that are still missing.

    `progress` is called as shards reach the disk. While one shard is stored, the next is computed.
    Raises what `TargetRequest.missing` raises.
    """
    missing = request.missing()
    targets, total = Targets(request.directory), len(request.blocks)
    started, computed = time.monotonic(), 0

    def finish(written: Future[None], index: int) -> None:
        nonlocal computed
        written.result()
        done = min(total, (index + 1) * SHARD_BLOCKS)
        computed += done - index * SHARD_BLOCKS
        speed = computed * request.blocks.shape[1] / (time.monotonic() - started)
        progress(done, total, speed)

    under_way: tuple[Future[None], int] | None = None
    with ThreadPoolExecutor(1, "targets") as writer:
        for index in missing:
            pieces = request.shard(index).answered(model, precision)
            if under_way:
                finish(*under_way)
            under_way = writer.submit(write_shard, targets.folder(index), pieces), index
        if under_way:
            finish(*under_way)
    return targets
