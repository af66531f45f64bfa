"""Codecs of targets: three ways to store next-token distributions as arrays and read them back.

The whole distribution; the likeliest tokens with all others in one bucket; and tokens drawn from
the teacher, which are right on average (arXiv 2503.16870). Log-probabilities are stored in fp16.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import DistillError
from distill.backend.placing import placed
from distill.targets.batch import TargetBatch
from distill.targets.names import FULL, MOST_DRAWS, SAMPLED, TOPK
from distill.targets.shards import Arrays, ShardSeries

_LOWEST = -6e4
"""Lowest log-probability stored: the fp16 of anything lower is infinite."""


@dataclass(frozen=True)
class TargetCodec(ABC):
    """Encoder and decoder of one kind of `TargetFormat`; the fields are the format's."""

    kind: ClassVar[str]
    """Name of the kind in a format."""
    vocabulary: int
    """Tokens that are stored."""
    topk: int = 0
    """Entries stored of each token's distribution."""
    draws: int = 0
    """Tokens drawn for each position."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raises DistillError for fields that make no sense for the kind."""

    @property
    @abstractmethod
    def bytes_per_token(self) -> int:
        """Bytes that a token takes on disk, at most.

        Besides the entries: fp32 for the probability of the token that really came next, and one
        more fp32 for the tail, or the number of entries.
        """

    @property
    @abstractmethod
    def description(self) -> str:
        """The kind for people, up to its bytes per token."""

    @abstractmethod
    def encode(self, log_probs: Tensor, first_slot: int) -> Arrays:
        """The arrays for fp32 `log_probs` [blocks, sequence, vocab], in slots `first_slot`, ..."""

    @abstractmethod
    def decode(
        self, shards: ShardSeries, slots: NDArray[np.int64], device: torch.device
    ) -> TargetBatch:
        """The targets of the blocks in `slots`, normalised against rounding."""

    @property
    def id_bytes(self) -> int:
        """Bytes of a token id: 2, or 3 where 2 do not hold the vocabulary."""
        return 2 if self.vocabulary <= 2**16 else 3

    def pack_ids(self, ids: Tensor) -> Arrays:
        """Token ids as `ids` uint16 and, where that does not hold the vocabulary, `high` uint8."""
        wide = ids.cpu().numpy()
        packed: Arrays = {"ids": wide.astype(np.uint16)}  # drops the bits above
        if self.id_bytes > 2:
            packed["high"] = (wide >> 16).astype(np.uint8)
        return packed

    @property
    def id_names(self) -> tuple[str, ...]:
        """The arrays that `pack_ids` makes."""
        return ("ids", "high") if self.id_bytes > 2 else ("ids",)

    def _require_no_draws(self) -> None:
        if self.topk < 1:
            raise DistillError(f"topk is {self.topk}; it must be above zero")
        if self.draws or self.seed:
            raise DistillError(f"draws and seed are of sampled targets, not of {self.kind} ones")


class FullCodec(TargetCodec):
    """The whole distribution: `log_probs` fp16 [blocks, sequence, vocab]."""

    kind = FULL

    def check(self) -> None:
        """Raises DistillError for draws, or no entry to store."""
        self._require_no_draws()

    @property
    def bytes_per_token(self) -> int:
        """fp16 for each token of the vocabulary."""
        return 2 * self.vocabulary + 8

    @property
    def description(self) -> str:
        """The kind for people."""
        return "whole distribution, "

    def encode(self, log_probs: Tensor, first_slot: int) -> Arrays:
        """`log_probs` as it is, and a tail of probability 0."""
        rest = np.zeros(log_probs.shape[:-1], np.float32)
        return {"log_probs": _stored(log_probs), "rest": rest}

    def decode(
        self, shards: ShardSeries, slots: NDArray[np.int64], device: torch.device
    ) -> TargetBatch:
        """The whole distribution, normalised."""
        return _bucketed(shards, slots, device=device)


class TopKCodec(TargetCodec):
    """The likeliest tokens, `ids` and `log_probs` [blocks, sequence, k], and the tail as `rest`."""

    kind = TOPK

    def check(self) -> None:
        """Raises DistillError for draws, or no entry to store."""
        self._require_no_draws()

    @property
    def bytes_per_token(self) -> int:
        """fp16 and an id for each stored token."""
        return self.topk * (2 + self.id_bytes) + 8

    @property
    def description(self) -> str:
        """The kind with the number of its entries."""
        return f"top {self.topk:,} and the rest, "

    def encode(self, log_probs: Tensor, first_slot: int) -> Arrays:
        """The likeliest tokens, and the probability of all others as `rest`."""
        values, ids = log_probs.topk(self.topk, -1)
        tail = log_probs.exp().scatter_(-1, ids, 0.0).sum(-1)
        return {
            "rest": tail.cpu().numpy(),
            "log_probs": _stored(values),
            **self.pack_ids(ids),
        }

    def decode(
        self, shards: ShardSeries, slots: NDArray[np.int64], device: torch.device
    ) -> TargetBatch:
        """The likeliest tokens and the tail, normalised."""
        packed = {name: shards.rows(name, slots) for name in self.id_names}
        ids = placed(unpack_ids(packed), device)
        return _bucketed(shards, slots, device=device, ids=ids)


class SampledCodec(TargetCodec):
    """Drawn tokens: of each position `lengths` entries of `ids`, `counts` and `log_probs`."""

    kind = SAMPLED

    def check(self) -> None:
        """Raises DistillError for `topk`, a negative seed, and draws that no count can hold."""
        if self.topk:
            raise DistillError(f"topk is {self.topk}; sampled targets have draws instead")
        if not 0 < self.draws <= MOST_DRAWS:
            raise DistillError(f"draws is {self.draws}; it must be from 1 to {MOST_DRAWS:,}")
        if self.seed < 0:
            raise DistillError(f"seed is {self.seed}; it must not be negative")

    @property
    def bytes_per_token(self) -> int:
        """Where no draw repeats another, which is the most."""
        count = self._count_type.itemsize
        return self.draws * (2 + self.id_bytes + count) + count + 4

    @property
    def description(self) -> str:
        """The kind with the number of its draws."""
        return f"{self.draws:,} draws, at most "

    @property
    def _count_type(self) -> np.dtype[Any]:
        """Holds the number of draws."""
        return np.dtype(np.uint8 if self.draws < 2**8 else np.uint16)

    def encode(self, log_probs: Tensor, first_slot: int) -> Arrays:
        """Draw from each block; entries of all positions stand one after the other."""
        drawn = [self.draw(row, first_slot + index) for index, row in enumerate(log_probs)]
        lengths = np.stack([row.pop("lengths") for row in drawn])
        ragged = {name: np.concatenate([row[name] for row in drawn]) for name in drawn[0]}
        return {"lengths": lengths, **ragged}

    def draw(self, log_probs: Tensor, slot: int) -> Arrays:
        """Tokens drawn from each of `log_probs` [sequence, vocab]; a slot always draws the same.

        Returns `lengths` [sequence], how many tokens were drawn at each position, and one after the
        other, by falling probability, their `ids`, `counts` and `log_probs` [entries].

        Sampling is systematic: the points where the cumulative distribution is read are evenly
        spaced, from one random offset per position. A token of probability p is then drawn
        floor(np) or ceil(np) times in n draws, np times on average: as unbiased as the independent
        draws of arXiv 2503.16870, and no scheme of n draws has a smaller variance of any token's
        count.
        """
        offset = np.random.default_rng([self.seed, slot]).random((len(log_probs), 1))
        points = ((np.arange(self.draws) + offset) / self.draws).astype(np.float32)
        cumulative = log_probs.exp().cumsum(-1)
        total = cumulative[:, -1:]
        # The sum may be off 1 by rounding; below it, no point falls on a token of no probability.
        places = torch.from_numpy(points).to(log_probs.device) * total
        places = torch.minimum(places, total.nextafter(torch.zeros_like(total)))
        ids = torch.searchsorted(cumulative, places, right=True)  # rising, equal ones side by side

        begins = torch.ones_like(ids, dtype=torch.bool)
        begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
        entry = begins.cumsum(-1) - 1
        counts = torch.zeros_like(ids).scatter_add_(-1, entry, torch.ones_like(ids))
        tokens = torch.zeros_like(ids).scatter_(-1, entry, ids)
        values = log_probs.gather(-1, tokens).masked_fill(counts == 0, -torch.inf)
        order = values.sort(dim=-1, descending=True, stable=True).indices
        kept = counts.gather(-1, order) > 0
        return {
            "lengths": kept.sum(-1).cpu().numpy().astype(self._count_type),
            "counts": counts.gather(-1, order)[kept].cpu().numpy().astype(self._count_type),
            "log_probs": _stored(values.gather(-1, order)[kept]),
            **self.pack_ids(tokens.gather(-1, order)[kept]),
        }

    def decode(
        self, shards: ShardSeries, slots: NDArray[np.int64], device: torch.device
    ) -> TargetBatch:
        """Drawn tokens, padded to the longest position, with their shares of the draws."""
        lengths = shards.rows("lengths", slots).astype(np.int64)
        packed = {name: shards.entries(name, slots) for name in self.id_names}
        filled = np.arange(lengths.max(initial=0)) < lengths[..., None]

        def padded(values: NDArray[Any], dtype: torch.dtype) -> Tensor:
            table = np.zeros(filled.shape, values.dtype)
            table[filled] = values
            return placed(table, device, dtype)

        return TargetBatch(
            ids=padded(unpack_ids(packed), torch.int64),
            log_probs=padded(shards.entries("log_probs", slots), torch.float32),
            tail_probability=torch.zeros(lengths.shape, device=device),
            share=padded(shards.entries("counts", slots), torch.float32) / self.draws,
        )


CODECS: dict[str, type[TargetCodec]] = {
    codec.kind: codec for codec in (FullCodec, TopKCodec, SampledCodec)
}


def _bucketed(
    shards: ShardSeries,
    slots: NDArray[np.int64],
    *,
    device: torch.device,
    ids: Tensor | None = None,
) -> TargetBatch:
    """Stored log-probabilities and tails that sum to one, for entries `ids` or all tokens."""
    log_probs = placed(shards.rows("log_probs", slots), device, torch.float32)
    rest = placed(shards.rows("rest", slots), device)
    total = (log_probs.exp().sum(-1) + rest).log()
    return TargetBatch(ids, log_probs - total.unsqueeze(-1), rest / total.exp())


def _stored(log_probs: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = log_probs.clamp_min(_LOWEST).half().cpu().numpy()
    return array


def unpack_ids(packed: Arrays) -> NDArray[np.int64]:
    """The token ids that `TargetCodec.pack_ids` packed."""
    ids = packed["ids"].astype(np.int64)
    if "high" in packed:
        ids |= packed["high"].astype(np.int64) << 16
    return ids
