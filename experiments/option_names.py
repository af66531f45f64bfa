"""Option names: abbreviations written out, and the nearest to a name that is none."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

from common.values import is_text

OF_THE_PARSER = ("--help", "--config", "--print_config")
ALIKE = 0.7
"""How alike a name must be to be meant; 1 is the same."""
TOO_LONG = re.compile(r"\d[\d_]{308,}")
"""Digits of an integer that no float holds, at which parsers break."""


class WrongOption(ValueError):
    """An option that cannot be; the text says which, and why."""


@dataclass(frozen=True)
class OptionNames:
    """The options of a command by name, with their types."""

    types: Mapping[str, Any]
    """Option, such as --budget.parameters, -> its type."""

    @cached_property
    def groups(self) -> set[str]:
        """What begins the names of several options: --budget, but not --block."""
        parts = [option.split(".") for option in self.types]
        return {".".join(name[:end]) for name in parts for end in range(1, len(name))}

    @cached_property
    def written_names(self) -> list[str]:
        """All that may be written, without the keys of options that are mappings."""
        denied = [f"--no_{name[2:]}" for name, hint in self.types.items() if hint is bool]
        return [*OF_THE_PARSER, *self.types, *sorted(self.groups), *denied]

    def full(self, name: str) -> str:
        """The option that `name` is, or of which it is the only beginning.

        Raises WrongOption where there is none, or there are several.
        """
        name = with_underscores(name)
        plain = name.removesuffix("+")  # adds to a list
        if plain in self.written_names or self._of_key(plain) is not None:
            return name
        begun = [option for option in self.written_names if option.startswith(plain)]
        if len(begun) == 1:
            return begun[0] + name[len(plain) :]
        raise WrongOption(f"there is no option {name}{self._meant(plain)}")

    def check_value(self, option: str, value: str) -> None:
        """Raises WrongOption for a value, as it is written, that nothing can be read from."""
        hint = self.types.get(option, self._of_key(option))
        if not is_text(value):
            raise WrongOption(f"{option} is {value!r}, which is no text")
        if _holds(hint, Path) and not value:
            raise WrongOption(f"{option} is empty; give a path")
        digits = TOO_LONG.search(value)
        if digits and (_holds(hint, int) or _holds(hint, float)):
            raise WrongOption(
                f"{option} has a number of {len(digits[0])} digits, which is too long"
            )

    def first_of(self, group: str) -> str:
        """An option of a group."""
        return next(option for option in self.types if option.startswith(group + "."))

    def _of_key(self, name: str) -> Any:
        """The type of the option that a name such as --space.multiple_of.ffn is a key of, if one
        is."""
        hint = self.types.get(name.rpartition(".")[0])
        return hint if _holds(hint, dict) else None

    def _meant(self, name: str) -> str:
        written = name.removeprefix("--")
        plain = [option.removeprefix("--") for option in self.written_names]
        near = difflib.get_close_matches(written, plain, n=2, cutoff=ALIKE)
        last = written.rpartition(".")[2]
        same = [option for option in plain if option.rpartition(".")[2] == last]
        meant = list(dict.fromkeys([*same, *near]))[:3]
        return f"; did you mean {' or '.join('--' + option for option in meant)}?" if meant else ""


def with_underscores(name: str) -> str:
    """A name with dashes, as other programs have them (--no-dashboard), as it is written here."""
    return "--" + name.removeprefix("--").replace("-", "_")


def _holds(hint: Any, kind: type) -> bool:
    """Whether a type is `kind`, or allows it, or is made of it."""
    return kind in (hint, get_origin(hint)) or any(_holds(part, kind) for part in get_args(hint))
