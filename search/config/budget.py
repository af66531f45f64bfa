"""Limits as a user sets them. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.bounds import Bound, at_least, between, bounded, check_bounds, one_of
from common.errors import require
from search.config.units import COSTS, RATE, THROUGHPUTS, Quantity, quantity

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

MOST_SERVED = 1_000_000
"""Sequences at once; with it and any context, bytes are counted in 64 bits."""

TOLERANCE = Bound("be in [0, 1)", lambda value: 0 <= value < 1)

Limit = float | str | list[float | str] | None


@dataclass(frozen=True)
class BudgetConfig:
    """Limits that a student must meet, all of them.

    Each is a number (at most so much), text with a unit such as 8GB, or a band [least, most]. With
    none, a student has at most 0.5 of the teacher's parameters.
    """

    parameters: Limit = None
    """Parameters: a share of the teacher's if <= 1, else a count (4e9, 500M, 4B), or a band [least,
    most]; 0.5 where no limit is given."""
    tolerance: float | None = bounded(0.05, TOLERANCE)
    """Without a band, a student uses at least (1 - tolerance) of one of the limits; null: no
    matter how little."""
    non_embedding: Limit = None
    """Parameters without embeddings and output head: a share, or a count."""
    active: Limit = None
    """Parameters that a token uses (of a mixture of experts, those it is routed to): likewise."""
    memory: Limit = None
    """Weights and KV cache of `batch` sequences of `context` tokens: a share, or bytes (8GB)."""
    flops: Limit = None
    """Arithmetic of a forward pass per token, the mean over `context`: a share, or 1.5GFLOP."""
    prefill_ms: Limit = None
    """Milliseconds to read `batch` prompts of `context` tokens."""
    decode_ms: Limit = None
    """Milliseconds of one decoding step for the batch, with `context` tokens in the cache."""
    prefill_tokens_per_second: Limit = None
    """Least tokens of prompts read per second, over the whole batch."""
    decode_tokens_per_second: Limit = None
    """Least tokens generated per second, over the whole batch."""
    batch: int = bounded(1, between(1, MOST_SERVED))
    """Sequences served at once."""
    context: int | None = bounded(None, at_least(1))
    """Tokens of each; by default those of a training sequence."""
    dtype: str = bounded("bfloat16", one_of(BYTES_PER_VALUE))
    """Type of weights and KV cache where the student is served: float32, bfloat16, float16 or
    int8."""
    latency_table: Path | None = None
    """CSV file of latencies measured elsewhere (layers, hidden, heads, kv_heads, ffn, prefill_ms,
    decode_ms); by default they are measured here."""

    def __post_init__(self) -> None:
        for option in (*COSTS, *THROUGHPUTS):
            self.ends(option)
        for option, cost in THROUGHPUTS.items():
            require(
                getattr(self, option) is None or getattr(self, cost) is None,
                f"--budget.{option} and --budget.{cost} are both given; they limit the same",
            )
        check_bounds(self, "--budget.")

    @property
    def given(self) -> tuple[str, ...]:
        """The costs that the user limits."""
        limited = {THROUGHPUTS.get(option, option) for option in self._options}
        return tuple(cost for cost in COSTS if cost in limited)

    @property
    def _options(self) -> list[str]:
        """The limits that are given."""
        return [o for o in (*COSTS, *THROUGHPUTS) if getattr(self, o) is not None]

    def ends(self, option: str) -> tuple[Quantity | None, Quantity] | None:
        """(least, most) of a limit; None where it is not given. Raises SearchError."""
        given, unit = getattr(self, option), RATE if option in THROUGHPUTS else COSTS[option][0]
        if given is None:
            return None
        if not isinstance(given, list):
            return None, quantity(option, given, unit=unit)
        require(
            len(given) == 2,
            f"--budget.{option} is {given}; a band has two ends, [least, most]",
        )
        return quantity(option, given[0], unit=unit), quantity(option, given[1], unit=unit)
