"""Units of costs: how limits are written, and costs shown ("8GB", "4B", "1.5GFLOP", a share)."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.errors import require

FEWEST = 100
"""A bare number above 1 and below this is a share that was meant, and too large."""
WRITTEN = re.compile(r"\s*([-+]?[\d_]*\.?\d+(?:e[-+]?\d+)?|[-+]?\d[\d_]*\.?)\s*([a-z/%]*)\s*", re.I)

THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Unit:
    """Unit that numbers of one kind are given and shown in."""

    suffixes: Mapping[str, float]
    """Lower-case suffix -> how many it stands for."""
    example: str
    """How a user may write one."""
    shown: Callable[[float], str]
    """How one is printed."""
    shares: bool = False
    """Whether a value <= 1 is a share of the teacher's."""


@dataclass(frozen=True)
class Quantity:
    """One end of a limit, as it was given."""

    value: float
    """In the unit itself, or a share."""
    share: bool
    """Whether it counts in the teacher's own cost."""

    def of(self, teacher: float) -> float:
        """The figure where the teacher's own is `teacher`."""
        return self.value * teacher if self.share else self.value


def quantity(option: str, given: float | str, *, unit: Unit) -> Quantity:
    """What the user wrote. Raises SearchError, naming the `option`, for no quantity of the unit."""
    shown = repr(given) if isinstance(given, str) else f"{given:g}"
    found = WRITTEN.fullmatch(given if isinstance(given, str) else repr(float(given)))
    suffix = found[2].lower() if found else ""
    percent = suffix == "%" and unit.shares
    value = 0.0
    if found and (percent or suffix in unit.suffixes):
        scale = 0.01 if percent else unit.suffixes[suffix]
        value = float(found[1].replace("_", "")) * scale
    require(
        0 < value < math.inf,
        f"--budget.{option} is {shown}; it must be a number above 0, such as {unit.example}",
    )
    bare = unit.shares and not suffix
    require(
        not (percent and value > 1) and not (bare and 1 < value < FEWEST),
        f"--budget.{option} is {shown}, above 1 times the teacher; give a share of the teacher's, "
        f"at most 1, or an amount, such as {unit.example}",
    )
    return Quantity(value, percent or (bare and value <= 1))


def _scaled(units: Mapping[str, float]) -> Callable[[float], str]:
    """Four digits, in the largest unit of which there is one."""

    def shown(value: float) -> str:
        name, scale = max(
            ((name, scale) for name, scale in units.items() if value >= scale),
            key=lambda unit: unit[1],
            default=min(units.items(), key=lambda unit: unit[1]),
        )
        return f"{value / scale:,.4g} {name}"

    return shown


PARAMETERS = Unit(
    {**THOUSANDS, "b": 1e9}, "4B, 500M or 4e9", lambda value: f"{value:,.0f}", shares=True
)
BYTES = Unit(
    {
        **THOUSANDS,
        **{f"{prefix}b": scale for prefix, scale in THOUSANDS.items()},
        **{f"{prefix}ib": 1024.0**power for power, prefix in enumerate("kmgt", 1)},
    },
    "8GB or 500MB",
    _scaled({"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}),
    shares=True,
)
FLOPS = Unit(
    {
        f"{prefix}{end}": scale
        for prefix, scale in THOUSANDS.items()
        for end in ("", "flop", "flops")
    },
    "1.5GFLOP",
    _scaled({"FLOP": 1, "kFLOP": 1e3, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12}),
    shares=True,
)
MILLISECONDS = Unit({"": 1.0, "ms": 1.0, "s": 1e3}, "20 or 20ms", lambda value: f"{value:,.4g} ms")
RATE = Unit({"": 1.0, "k": 1e3}, "30", lambda value: f"{value:,.4g}")

COSTS: dict[str, tuple[Unit, str]] = {
    "parameters": (PARAMETERS, "parameters"),
    "non_embedding": (PARAMETERS, "parameters without embeddings"),
    "active": (PARAMETERS, "active parameters"),
    "memory": (BYTES, "memory"),
    "flops": (FLOPS, "per token"),
    "prefill_ms": (MILLISECONDS, "of prefill"),
    "decode_ms": (MILLISECONDS, "per decoding step"),
}
"""Cost -> its unit, and what is said after an amount of it."""
COUNTED = ("parameters", "non_embedding", "active", "memory", "flops")
"""The costs that are counted; the others are measured."""
THROUGHPUTS = {
    "prefill_tokens_per_second": "prefill_ms",
    "decode_tokens_per_second": "decode_ms",
}
"""Limit from below -> the cost that it limits from above."""


def shown_quantity(cost: str, value: float) -> str:
    """An amount of a cost, such as "3.2 MB memory"."""
    unit, noun = COSTS[cost]
    return f"{unit.shown(value)} {noun}"
