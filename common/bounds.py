"""Bounds of settings, declared beside their defaults.

They are metadata of the fields and not `Annotated` types, which `--help` and the errors of the
command line would show in place of the type.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from common.errors import require

BOUND = "bound"
"""Key of the metadata of a field."""
Default = TypeVar("Default")


@dataclass(frozen=True)
class Bound:
    """Rule that the value of a setting must meet."""

    rule: str
    """Completes "it must ..."."""
    holds: Callable[[Any], bool]
    """Of a value that is not None; false for nan."""


NOT_NEGATIVE = Bound("not be negative", lambda value: value >= 0)
ABOVE_ZERO = Bound("be above zero", lambda value: value > 0)
ONE_OR_MORE = Bound("be >= 1", lambda value: value >= 1)
FRACTION = Bound("be in (0, 1)", lambda value: 0 < value < 1)


def at_least(least: int) -> Bound:
    """Numbers from `least`."""
    return Bound(f"be at least {least}", lambda value: value >= least)


def between(least: int, most: int) -> Bound:
    """Numbers from `least` to `most`."""
    return Bound(f"be from {least} to {most:,}", lambda value: least <= value <= most)


def one_of(names: Iterable[str]) -> Bound:
    """Any of these names."""
    known = tuple(names)
    return Bound(f"be one of {', '.join(known)}", lambda value: value in known)


def bounded(default: Default, bound: Bound) -> Default:
    """A field with this default, whose values are bounded; None is always allowed."""
    made: Default = field(default=default, metadata={BOUND: bound})
    return made


def check_bounds(settings: Any, prefix: str = "--") -> None:
    """Raises SearchError for a field of the dataclass `settings` that is out of its bounds.

    `prefix` is what its options begin with.
    """
    for each in fields(settings):
        bound, value = each.metadata.get(BOUND), getattr(settings, each.name)
        if bound is not None and value is not None:
            require(bound.holds(value), f"{prefix}{each.name} is {value!r}; it must {bound.rule}")
