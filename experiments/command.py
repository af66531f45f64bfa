"""What the commands share: options from a configuration class, and one sentence for a fault."""

import errno
import re
import sys
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
WRONG_TYPE = re.compile(r"""Parser key "(.+?)":;? Expected an? <class '(.+?)'>\. Got value: (.*)""")

WRONG_OPTIONAL = re.compile(
    r"""Parser key "(.+?)":;? Does not validate against any of the Union subtypes;? """
    r"""Subtypes: \[<class '(\w+)'>, <class 'NoneType'>\].*Given value: (.*)"""
)

WRONG_UNION = re.compile(
    r"""Parser key "(.+?)":;? Does not validate against any of the Union subtypes;.*"""
    r"""Given value: (.*)"""
)


class Parser(ArgumentParser):
    """One clear sentence for a wrong option, instead of the usage and a stack of reasons."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
        text = "; ".join(lines).replace(":; ", ": ")
        for pattern in (WRONG_TYPE, WRONG_OPTIONAL):
            text = pattern.sub(r"--\1 is \3; it must be of type \2", text)
        text = WRONG_UNION.sub(r"--\1 is \2; it is of another type (see --help)", text)
        print(f"error: {text} (see --help)", file=sys.stderr)
        raise SystemExit(2)


def parse(kind: Any, description: str | None, arguments: list[str] | None) -> Any:
    """A `kind` from the command line and, with --config, a YAML file.

    Raises what the class raises for values that cannot be.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(description=description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(kind)
    values = vars(parser.instantiate(parser.parse_args(arguments)))
    values.pop("config")
    return kind(**values)
