"""Paths of models and corpora that the user names, where an id of the Hub may stand too."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import DistillError, SearchError


def is_path(name: str) -> bool:
    """Whether a name can be no id of the Hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that it matches."""
    return any(mark in name for mark in "*?[")


def no_model(name: str, role: str) -> SearchError:
    """Refusal of a model, named by the option `role`, that is no folder."""
    return SearchError(
        f"the {role} {name} does not exist or is no folder; give a model's folder or Hub id"
    )


def no_corpus(name: str) -> DistillError:
    """Refusal of a corpus that is not there."""
    return DistillError(
        f"the corpus {name} does not exist; give a file, a folder or a Hub data set"
    )


def check_there(corpus: str | Sequence[str] | None, teacher: str | None) -> None:
    """Refuse what is named by a path where nothing is, before anything is imported to open it.

    Raises SearchError or DistillError.
    """
    if teacher and is_path(teacher) and not Path(teacher).expanduser().is_dir():
        raise no_model(teacher, "teacher")
    for name in [corpus] if isinstance(corpus, str) else corpus or ():
        if is_path(name) and not is_pattern(name) and not _exists(name):
            raise no_corpus(name)


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError):  # a name too long, or with a NUL: its reason is told later
        return True
