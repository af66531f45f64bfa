"""Target formats: how a teacher's distribution is stored, and which format a run takes."""

from dataclasses import dataclass, replace
from functools import cached_property

from common.errors import DistillError
from distill.targets.codecs import CODECS, TargetCodec
from distill.targets.names import DRAWS, FULL, KINDS, SAMPLED, TOPK, TRAINING_TOPK

FULL_VOCABULARY = 8_192
"""The whole distribution is stored for vocabularies up to this size, where it fits."""
EVALUATION_DRAWS = 4_096
"""Evaluation draws so often for larger ones."""
FEWEST_DRAWS = 12
"""`choose_format` goes no lower."""
_WIDEST_ID = 2**24


@dataclass(frozen=True)
class TargetFormat:
    """How a distribution is stored.

    `TargetFormat(vocabulary, topk, temperature)` keeps the `topk` likeliest tokens, or everything
    where that is the vocabulary. Raises DistillError for what cannot be.
    """

    vocabulary: int
    """Tokens that are stored; columns of the teacher's logits beyond them are padding."""
    topk: int = 0
    """Entries stored of each token's distribution; the vocabulary for `full`, 0 for `sampled`."""
    temperature: float = 1.0
    """Divides the teacher's logits."""
    kind: str = TOPK
    """One of `KINDS`."""
    draws: int = 0
    """How many tokens are drawn for each position; 0 but for `sampled`."""
    seed: int = 0
    """Seed of the draws; 0 but for `sampled`."""

    @classmethod
    def whole(cls, vocabulary: int, temperature: float = 1.0) -> "TargetFormat":
        """The whole distribution."""
        return cls(vocabulary, vocabulary, temperature)

    @classmethod
    def sampled(
        cls, vocabulary: int, draws: int = DRAWS, *, temperature: float = 1.0, seed: int = 0
    ) -> "TargetFormat":
        """So many draws."""
        return cls(vocabulary, 0, temperature, SAMPLED, draws, seed)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DistillError(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if not 0 < self.vocabulary <= _WIDEST_ID:
            raise DistillError(
                f"vocabulary is {self.vocabulary}; it must be from 1 to {_WIDEST_ID:,}"
            )
        if not self.temperature > 0:
            raise DistillError(f"temperature is {self.temperature}; it must be above zero")
        if self.full or (self.kind == TOPK and self.topk >= self.vocabulary):
            object.__setattr__(self, "kind", FULL)
            object.__setattr__(self, "topk", self.vocabulary)
        _ = self.codec  # raises DistillError for fields that make no sense

    @cached_property
    def codec(self) -> TargetCodec:
        """Encoder and decoder of the kind."""
        return CODECS[self.kind](self.vocabulary, self.topk, self.draws, self.seed)

    @property
    def full(self) -> bool:
        """Whether the whole distribution is stored."""
        return self.kind == FULL

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a token takes on disk, at most."""
        return self.codec.bytes_per_token

    def describe_itself(self) -> str:
        """For people: `top 64 and the rest, 264 bytes per token`."""
        return f"{self.codec.description}{self.bytes_per_token:,} bytes per token"


def evaluation_format(vocabulary: int) -> TargetFormat:
    """The format that keeps the KL of an evaluation exact to 1 %.

    A bucket hides what happens in it: over a vocabulary of 131,072 it takes the 8,192 likeliest
    tokens, 41 kB, to lose about 1 % where the teacher is undecided. As many draws as here are
    right on average and lose nothing; they fall on some 300 tokens, 2 kB, and are off by 1 % for a
    single position, which a sequence of them averages out
    (experiments/benchmarks/distill/targets.py).
    """
    if vocabulary <= FULL_VOCABULARY:
        return TargetFormat.whole(vocabulary)
    return TargetFormat.sampled(vocabulary, EVALUATION_DRAWS)


@dataclass(frozen=True)
class FormatRequest:
    """Requirements on the format of a training run's targets."""

    kind: str = "auto"
    """One of `KINDS`, or auto: `sampled` with up to `draws` draws, as many as are sure to fit, at
    least `FEWEST_DRAWS`; for `any_loss`, `full` up to `FULL_VOCABULARY` where that fits, else
    `topk`."""
    topk: int = TRAINING_TOPK
    """Entries per token of topk targets."""
    draws: int = DRAWS
    """Draws per token of sampled targets, at most."""
    temperature: float = 1.0
    """Softmax temperature of the teacher."""
    seed: int = 0
    """Seed of the draws."""
    any_loss: bool = False
    """Whether the loss is one that draws cannot estimate."""

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *KINDS):
            raise DistillError(
                f"targets are {self.kind!r}; it must be one of auto, {', '.join(KINDS)}"
            )

    def candidates(self, vocabulary: int) -> list[TargetFormat]:
        """The formats that will do, the best first."""
        auto = self.kind == "auto"
        full = TargetFormat.whole(vocabulary, self.temperature)
        likeliest = TargetFormat(vocabulary, self.topk, self.temperature)
        if auto and self.any_loss:
            return [full, likeliest] if vocabulary <= FULL_VOCABULARY else [likeliest]
        if self.kind in (FULL, TOPK):
            return [full if self.kind == FULL else likeliest]
        sampled = TargetFormat.sampled(
            vocabulary, self.draws, temperature=self.temperature, seed=self.seed
        )
        fewer = range(self.draws - 1, FEWEST_DRAWS - 1, -1) if auto else ()
        return [sampled, *(replace(sampled, draws=number) for number in fewer)]


def choose_format(
    request: FormatRequest,
    vocabulary: int,
    *,
    tokens: int,
    limit_bytes: float,
    limit_name: str = "the limit of",
) -> TargetFormat:
    """The format for the targets of so many training tokens in at most `limit_bytes` of disk.

    The error of draws in a token's gradient is larger than that of top-k (16 to 22 % of its size at
    50 draws, 3 to 5 % at 64 entries; `experiments/benchmarks/distill/targets.py`), but it
    averages out, and the other lasts: the demo's student ends 1.4 % further from its teacher with
    64 entries than with the whole distribution, 0.8 % with 12 draws, and within the noise of 0.2 %
    with 50, which take a third of the bytes of 64 entries
    (`experiments/benchmarks/distill/distill_quality.py`).

    Raises DistillError where nothing fits, with the bytes needed and what can be done; `limit_name`
    is what its sentence calls the limit.
    """
    candidates = request.candidates(vocabulary)
    for candidate in candidates:
        if candidate.bytes_per_token * tokens <= limit_bytes:
            return candidate
    least = candidates[-1]
    raise DistillError(
        f"the teacher's targets need {shown_bytes(least.bytes_per_token * tokens)} "
        f"({least.describe_itself()}), above {limit_name} {shown_bytes(limit_bytes)}; raise it, "
        "train on fewer tokens, store less of each (--training.targets, --training.topk, "
        "--training.draws), or have the teacher run beside the student (--training.targets live)"
    )


def shown_bytes(size: float) -> str:
    """Bytes for people, in the largest unit that leaves a number above one."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size:,.0f} bytes"
