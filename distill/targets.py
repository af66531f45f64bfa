"""What the teacher says about the corpus, computed once and read by every run.

Stored in shards of blocks, memory-mapped: the log-probabilities of the k likeliest tokens, the mass
of all others as one bucket, and the log-probability of the token that really came next. A shard is
complete or absent, so writing resumes after the last one.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.checkpoint import write_directory_atomically, write_file_atomically
from distill.errors import DistillError

SHARD_BLOCKS = 128
FULL_VOCABULARY = 8_192
"""Evaluation stores the whole distribution for vocabularies up to this size."""
EVALUATION_TOPK = 4_096
"""And this many entries with a bucket for larger ones."""


@dataclass(frozen=True)
class TargetFormat:
    """How a distribution is stored."""

    vocabulary: int
    topk: int
    """Entries stored; `vocabulary` for the whole distribution, without indices."""
    temperature: float = 1.0

    @property
    def full(self) -> bool:
        return self.topk >= self.vocabulary

    @property
    def bytes_per_token(self) -> int:
        if self.full:
            return 2 * self.vocabulary + 8
        return self.topk * (2 + self.id_type.itemsize) + 8

    @property
    def id_type(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.int32)


def evaluation_format(vocabulary: int) -> TargetFormat:
    """The format that keeps the KL of an evaluation exact to 1 %."""
    topk = vocabulary if vocabulary <= FULL_VOCABULARY else EVALUATION_TOPK
    return TargetFormat(vocabulary, topk)


@dataclass(frozen=True)
class TargetBatch:
    """Targets of some blocks: `ids` is None where the whole distribution is stored."""

    ids: Tensor | None
    """int64 [blocks, sequence, k]."""
    log_probs: Tensor
    """fp32 [blocks, sequence, k or vocab]."""
    rest: Tensor
    """fp32 [blocks, sequence], the probability of all tokens without an entry."""


@dataclass(frozen=True)
class Targets:
    """A directory of target shards, in slots 0, 1, ... of one block each."""

    directory: Path

    @cached_property
    def format(self) -> TargetFormat:
        return TargetFormat(**json.loads((self.directory / "format.json").read_text()))

    @cached_property
    def _shards(self) -> dict[int, dict[str, NDArray[Any]]]:
        return {}

    def holds(self, blocks: int) -> bool:
        """Whether the first `blocks` slots are all written."""
        for index in range(-(-blocks // SHARD_BLOCKS)):
            rest = self.directory / f"{index:05d}" / "rest.npy"
            wanted = min(SHARD_BLOCKS, blocks - index * SHARD_BLOCKS)
            if not rest.exists() or len(np.load(rest, mmap_mode="r")) < wanted:
                return False
        return True

    def _shard(self, index: int) -> dict[str, NDArray[Any]]:
        if index not in self._shards:
            folder = self.directory / f"{index:05d}"
            if not folder.exists():
                raise DistillError(f"{folder} is missing; start the study again to compute it")
            arrays = {f.stem: np.load(f, mmap_mode="r") for f in folder.glob("*.npy")}
            self._shards[index] = arrays
        return self._shards[index]

    def _rows(self, name: str, slots: NDArray[np.int64]) -> NDArray[Any]:
        rows = [self._shard(int(s) // SHARD_BLOCKS)[name][int(s) % SHARD_BLOCKS] for s in slots]
        return np.stack(rows)

    def batch(self, slots: NDArray[np.int64], device: torch.device) -> TargetBatch:
        """The targets of the blocks in `slots`, normalised against rounding."""
        log_probs = torch.from_numpy(self._rows("log_probs", slots)).to(device).float()
        rest = torch.from_numpy(self._rows("rest", slots)).to(device)
        total = (log_probs.exp().sum(-1) + rest).log()
        ids = None
        if not self.format.full:
            ids = torch.from_numpy(self._rows("ids", slots).astype(np.int64)).to(device)
        return TargetBatch(
            ids=ids,
            log_probs=log_probs - total.unsqueeze(-1),
            rest=rest / total.exp(),
        )

    def next_log_probs(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """[blocks, sequence], of the token that really came next; 0 at the end of a block."""
        return self._rows("next", slots)


def blocks_at_once(block: int, vocabulary: int) -> int:
    """Blocks whose logits take at most 256 MB in fp32, at most 16."""
    return max(1, min(16, 2**26 // (block * vocabulary)))


@torch.no_grad()
def describe(model: nn.Module, blocks: Tensor, form: TargetFormat) -> dict[str, NDArray[Any]]:
    """The arrays of one shard for `blocks` [blocks, sequence] on the model's device."""
    logits: Tensor = model(input_ids=blocks, use_cache=False).logits.float()
    plain = torch.log_softmax(logits, -1)
    following = plain[:, :-1].gather(-1, blocks[:, 1:, None]).squeeze(-1)
    arrays = {"next": torch.nn.functional.pad(following, (0, 1)).cpu().numpy()}
    scaled = plain if form.temperature == 1.0 else torch.log_softmax(logits / form.temperature, -1)
    if form.full:
        arrays["log_probs"] = scaled.clamp_min(-6e4).half().cpu().numpy()
        arrays["rest"] = np.zeros(blocks.shape, np.float32)
        return arrays
    values, ids = scaled.topk(form.topk, -1)
    others = scaled.exp().scatter_(-1, ids, 0.0).sum(-1)
    arrays["log_probs"] = values.clamp_min(-6e4).half().cpu().numpy()
    arrays["ids"] = ids.cpu().numpy().astype(form.id_type)
    arrays["rest"] = others.cpu().numpy()
    return arrays


def write_targets(
    model: nn.Module,
    blocks: NDArray[Any],
    form: TargetFormat,
    directory: Path,
    batch: int | None = None,
    progress: Callable[[int, int, float], None] = lambda done, total, speed: None,
) -> Targets:
    """Write the targets of `blocks` [slots, sequence], or what is still missing of them.

    `progress` gets (blocks done, blocks in all, tokens per second). A last shard that was shorter
    is written again when more blocks are asked for. Raises DistillError where `directory` holds
    targets in another format.
    """
    directory.mkdir(parents=True, exist_ok=True)
    targets = Targets(directory)
    if not (directory / "format.json").exists():
        write_file_atomically(directory / "format.json", json.dumps(asdict(form)))
    if targets.format != form:
        raise DistillError(f"{directory} holds {targets.format}, not {form}; give another folder")
    batch = batch or blocks_at_once(blocks.shape[1], form.vocabulary)
    device = next(model.parameters()).device
    started, computed = time.monotonic(), 0
    for index in range(-(-len(blocks) // SHARD_BLOCKS)):
        wanted = blocks[index * SHARD_BLOCKS : (index + 1) * SHARD_BLOCKS]
        folder = directory / f"{index:05d}"
        if folder.exists() and len(np.load(folder / "rest.npy", mmap_mode="r")) >= len(wanted):
            continue
        pieces = []
        for start in range(0, len(wanted), batch):
            ids = torch.from_numpy(wanted[start : start + batch].astype(np.int64)).to(device)
            pieces.append(describe(model, ids, form))
        _write_shard(folder, pieces)
        computed += len(wanted)
        speed = computed * blocks.shape[1] / (time.monotonic() - started)
        progress(index * SHARD_BLOCKS + len(wanted), len(blocks), speed)
    return targets


def _write_shard(folder: Path, pieces: list[dict[str, NDArray[Any]]]) -> None:
    def fill(directory: Path) -> None:
        for name in pieces[0]:
            np.save(directory / f"{name}.npy", np.concatenate([piece[name] for piece in pieces]))

    write_directory_atomically(folder, fill)
