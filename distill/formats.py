"""In which form a teacher's distribution is stored, what it takes on disk, and which form to take.

`full` is the whole distribution, `topk` the likeliest tokens with all others in one bucket, and
`sampled` tokens drawn from the teacher, which are right on average (arXiv 2503.16870).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distill.errors import DistillError

KINDS = ("full", "topk", "sampled")
FULL_VOCABULARY = 8_192
"""The whole distribution is stored for vocabularies up to this size, where it fits."""
EVALUATION_DRAWS = 4_096
"""Evaluation draws so often for larger ones."""
TRAINING_TOPK = 64
DRAWS = 50
FEWEST_DRAWS = 12
"""`choose_format` goes no lower."""
MOST_DRAWS = 2**16 - 1
_WIDEST_ID = 2**24


@dataclass(frozen=True)
class TargetFormat:
    """How a distribution is stored.

    `TargetFormat(vocabulary, topk, temperature)` keeps the `topk` likeliest tokens, or everything
    where that is the vocabulary. A `vocabulary` below the width of the teacher's logits leaves out
    the columns beyond it, which are padding. Raises DistillError for what cannot be.
    """

    vocabulary: int
    topk: int = 0
    """Entries stored of each token's distribution; the vocabulary for `full`, 0 for `sampled`."""
    temperature: float = 1.0
    kind: str = "topk"
    """One of `KINDS`."""
    draws: int = 0
    """How many tokens are drawn for each position; 0 but for `sampled`."""
    seed: int = 0
    """Of the draws; 0 but for `sampled`."""

    @classmethod
    def whole(cls, vocabulary: int, temperature: float = 1.0) -> "TargetFormat":
        return cls(vocabulary, vocabulary, temperature)

    @classmethod
    def sampled(
        cls, vocabulary: int, draws: int = DRAWS, temperature: float = 1.0, seed: int = 0
    ) -> "TargetFormat":
        return cls(vocabulary, 0, temperature, "sampled", draws, seed)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DistillError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if not 0 < self.vocabulary <= _WIDEST_ID:
            raise DistillError(
                f"vocabulary is {self.vocabulary}; it must be from 1 to {_WIDEST_ID:,}"
            )
        if not self.temperature > 0:
            raise DistillError(f"temperature is {self.temperature}; it must be above zero")
        if self.kind == "sampled":
            self._require_sampled()
            return
        if self.kind == "full" or self.topk >= self.vocabulary:
            object.__setattr__(self, "kind", "full")
            object.__setattr__(self, "topk", self.vocabulary)
        if self.topk < 1:
            raise DistillError(f"topk is {self.topk}; it must be above zero")
        if self.draws or self.seed:
            raise DistillError(f"draws and seed are of sampled targets, not of {self.kind} ones")

    def _require_sampled(self) -> None:
        if self.topk:
            raise DistillError(f"topk is {self.topk}; sampled targets have draws instead")
        if not 0 < self.draws <= MOST_DRAWS:
            raise DistillError(f"draws is {self.draws}; it must be from 1 to {MOST_DRAWS:,}")
        if self.seed < 0:
            raise DistillError(f"seed is {self.seed}; it must not be negative")

    @property
    def full(self) -> bool:
        return self.kind == "full"

    @property
    def bytes_per_token(self) -> int:
        """What a token takes on disk; of sampled targets the most, where no draw repeats another.

        Besides the entries: fp32 for the probability of the token that really came next, and one
        more fp32 for the rest, or the number of entries.
        """
        if self.kind == "full":
            return 2 * self.vocabulary + 8
        if self.kind == "topk":
            return self.topk * (2 + self.id_bytes) + 8
        count = self.count_type.itemsize
        return self.draws * (2 + self.id_bytes + count) + count + 4

    @property
    def id_bytes(self) -> int:
        """Bytes of a token id: 2, or 3 where 2 do not hold the vocabulary."""
        return 2 if self.vocabulary <= 2**16 else 3

    @property
    def count_type(self) -> np.dtype[Any]:
        """Holds the number of draws."""
        return np.dtype(np.uint8 if self.draws < 2**8 else np.uint16)

    def describe_itself(self) -> str:
        """For people: `top 64 and the rest, 264 bytes per token`."""
        if self.kind == "full":
            what = "whole distribution, "
        elif self.kind == "topk":
            what = f"top {self.topk:,} and the rest, "
        else:
            what = f"{self.draws:,} draws, at most "
        return f"{what}{self.bytes_per_token:,} bytes per token"


def evaluation_format(vocabulary: int) -> TargetFormat:
    """The format that keeps the KL of an evaluation exact to 1 %.

    A bucket hides what happens in it: over a vocabulary of 131,072 it takes the 8,192 likeliest
    tokens, 41 kB, to lose about 1 % where the teacher is undecided. As many draws as here are
    right on average and lose nothing; they fall on some 300 tokens, 2 kB, and are off by 1 % for a
    single position, which a sequence of them averages out (experiments/benchmarks/targets.py).
    """
    if vocabulary <= FULL_VOCABULARY:
        return TargetFormat.whole(vocabulary)
    return TargetFormat.sampled(vocabulary, EVALUATION_DRAWS)


def choose_format(
    vocabulary: int,
    tokens: int,
    limit_bytes: float,
    wanted: str = "auto",
    topk: int = TRAINING_TOPK,
    draws: int = DRAWS,
    temperature: float = 1.0,
    seed: int = 0,
    limit_name: str = "the limit of",
    any_loss: bool = False,
) -> TargetFormat:
    """The format for the targets of so many training tokens in at most `limit_bytes` of disk.

    `wanted` is one of `KINDS`, or "auto": `sampled` with up to `draws` draws, as many as are sure
    to fit, at least `FEWEST_DRAWS`; for `any_loss`, which draws cannot estimate, `full` up to
    `FULL_VOCABULARY` where that fits, else `topk`.

    The error of draws in a token's gradient is larger than that of top-k (16 to 22 % of its size at
    50 draws, 3 to 5 % at 64 entries; `experiments/benchmarks/targets.py`), but it averages out, and
    the other lasts: the demo's student ends 1.4 % further from its teacher with 64 entries than
    with the whole distribution, 0.8 % with 12 draws, and within the noise of 0.2 % with 50, which
    take a third of the bytes of 64 entries (`experiments/benchmarks/distill_quality.py`).
    Raises DistillError where nothing fits, with the bytes needed and what can be done.
    """
    if wanted not in ("auto", *KINDS):
        raise DistillError(f"targets are {wanted!r}; it must be one of auto, {', '.join(KINDS)}")
    full = TargetFormat.whole(vocabulary, temperature)
    likeliest = TargetFormat(vocabulary, topk, temperature)
    if wanted == "full":
        tried = [full]
    elif wanted == "topk":
        tried = [likeliest]
    elif wanted == "auto" and any_loss:
        tried = [full, likeliest] if vocabulary <= FULL_VOCABULARY else [likeliest]
    else:
        sampled = TargetFormat.sampled(vocabulary, draws, temperature, seed)
        fewer = range(draws - 1, FEWEST_DRAWS - 1, -1) if wanted == "auto" else ()
        tried = [sampled, *(replace(sampled, draws=number) for number in fewer)]
    for form in tried:
        if form.bytes_per_token * tokens <= limit_bytes:
            return form
    least = tried[-1]
    raise DistillError(
        f"the teacher's targets need {shown_bytes(least.bytes_per_token * tokens)} "
        f"({least.describe_itself()}), above {limit_name} {shown_bytes(limit_bytes)}; raise it, "
        "train on fewer tokens, store less of each (--training.targets, --training.topk, "
        "--training.draws), or have the teacher run beside the student (--training.targets live)"
    )


def shown_bytes(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size:,.0f} bytes"
