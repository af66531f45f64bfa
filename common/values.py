"""Refusal of values that no setting may hold: numbers and texts that nothing can compute with."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from common.errors import SearchError, require

LARGEST_INTEGER = 2**63 - 1
"""What databases, numpy and torch hold."""
LARGEST_NUMBER = 3.4e38
"""What a float32 holds; beyond it, kernels refuse a factor."""
LONGEST_NAME, LONGEST_PATH = 255, 4000
"""In bytes; files get a name below a path, too."""
PATHS = ("teacher", "student", "corpus")
"""Settings that may name a path, besides those that are one."""
WITHOUT_LIMIT = ("checkpoint_seconds", "clip_norm", "targets_gb")
"""Limits that infinity takes away."""


def check_values(settings: Any, prefix: str = "--") -> None:
    """Raises SearchError for a number that is not finite or too large, and for broken text.

    Looks into the dataclass `settings` and those inside it; `prefix` is what its options begin
    with.
    """
    for field in fields(settings):
        option, value = prefix + field.name, getattr(settings, field.name)
        if is_dataclass(value):
            check_values(value, option + ".")
            continue
        if value == math.inf and field.name in WITHOUT_LIMIT:
            continue
        for single in _singles(value):
            _check(option, single)
            if isinstance(single, Path) or field.name in PATHS:
                _check_path(option, Path(single))


def _singles(value: Any) -> Iterator[Any]:
    """The numbers and texts of a value, which may be a list or a mapping."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _singles(part)
    elif value is not None:
        yield value


def _check(option: str, value: Any) -> None:
    if isinstance(value, int):
        require(
            abs(value) <= LARGEST_INTEGER,
            f"{option} has a number of {len(str(abs(value)))} digits; it must be below 2^63",
        )
    elif isinstance(value, float):
        require(
            abs(value) <= LARGEST_NUMBER,  # false for nan
            f"{option} is {value}; it must be a finite number below {LARGEST_NUMBER:g}",
        )
    else:
        require(is_text(str(value)), f"{option} is {str(value)!r}, which is no text")


def _check_path(option: str, path: Path) -> None:
    longest = max((len(part.encode()) for part in path.parts), default=0)
    require(
        longest <= LONGEST_NAME,
        f"{option} has a part of {longest} bytes; a file's name may have {LONGEST_NAME}",
    )
    length = len(str(path).encode())
    require(length <= LONGEST_PATH, f"{option} has {length} bytes; a path may have {LONGEST_PATH}")
    try:
        path.expanduser()
    except RuntimeError:
        home = path.parts[0]
        raise SearchError(f"{option} is {path}, but this machine has no user {home[1:]}") from None


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8 and given to the operating system."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def in_ascii(text: str) -> str:
    """A name as the label of a metric, which Ray takes in ASCII only."""
    return text.encode("ascii", "backslashreplace").decode()
