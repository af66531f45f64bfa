"""Plugins: a user's own sampler or pruner, by import path."""

import inspect
import pkgutil
from typing import Any

from common.errors import SearchError


def is_import_path(text: str) -> bool:
    """Whether `text` looks like package.module:Name or package.module.Name."""
    parts = text.replace(":", ".", 1).split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def made_from(path: str, kind: type, *, setting: str, **offered: Any) -> Any:
    """The `kind` that the class or function at `path` gives when it is called.

    It gets those of `offered` that it has parameters for. Raises SearchError, which names
    `setting`, where there is no such thing, or it is of another kind.
    """
    try:
        # With a colon, so that what fails inside the module is not taken for a missing attribute.
        found = pkgutil.resolve_name(path if ":" in path else ":".join(path.rsplit(".", 1)))
        taken = inspect.signature(found).parameters
        made = found(**{key: value for key, value in offered.items() if key in taken})
    except Exception as problem:  # the module is the user's: anything may happen in it
        raise SearchError(
            f"{setting} is {path!r}, which cannot be used ({type(problem).__name__}: {problem}); "
            f"give package.module:Name of an Optuna {kind.__name__} or of a function without "
            "arguments that returns one"
        ) from problem
    if not isinstance(made, kind):
        raise SearchError(
            f"{setting} is {path!r}, which gives a {type(made).__name__}, no optuna {kind.__name__}"
        )
    return made
