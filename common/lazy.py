"""Lazy exports: names of a room that are imported when somebody first asks for one.

What reads options needs names and settings of many rooms, and none of the libraries that their
other modules stand on: importing those takes seconds, and a typo or `--help` would wait for them.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import getsource
from typing import Any


def lazy_exports(name: str) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of a room, by its `if TYPE_CHECKING:` imports.

    So they are written once, where type checkers and readers look for them. Modules below the room
    are imported by their names, too.
    """
    room = sys.modules[name]
    sources: dict[str, tuple[str, str]] = {}
    for node in ast.parse(getsource(room)).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    for each in line.names:
                        sources[each.asname or each.name] = (line.module, each.name)

    def exported(wanted: str) -> Any:
        if wanted not in sources:
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}")
        module, own = sources[wanted]
        value = vars(room)[wanted] = getattr(import_module(module), own)
        return value

    return exported
