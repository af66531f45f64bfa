"""Paths of models and corpora that the user names, where an id of the Hub may stand too."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.errors import DistillError, SearchError

Names = str | Sequence[str] | None
"""What an option names: one, several or none."""
TRIAL = re.compile(r"(.+):(\d+)")


def is_path(name: str) -> bool:
    """Whether a name can be no id of the Hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that it matches."""
    return any(mark in name for mark in "*?[")


def trial_of(name: str) -> tuple[Path, int] | None:
    """Workspace and number of a student that is a trial of a search, WORKSPACE:NUMBER; None where
    it is none, or there is no such folder."""
    found = TRIAL.fullmatch(name)
    if found is None or not _is_folder(_path(found[1])):
        return None
    return _path(found[1]), int(found[2])


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


def check_there(corpus: Names, models: Mapping[str, Names]) -> None:
    """Refuse what is named by a path where nothing is, before anything is imported to open it.

    `models` are by the option that names them. Raises SearchError or DistillError.
    """
    for role, names in models.items():
        for name in _each(names):
            if is_path(name) and not _is_folder(_path(name)) and trial_of(name) is None:
                raise no_model(name, role)
    for name in _each(corpus):
        if is_path(name) and not is_pattern(name) and not _exists(name):
            raise no_corpus(name)


def _each(names: Names) -> Iterator[str]:
    yield from [names] if isinstance(names, str) else names or ()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, or one that may not be looked up
        return False


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # the home of a user that there is not
        return Path(name)


def _exists(name: str) -> bool:
    try:
        return _path(name).exists()
    except (OSError, ValueError):  # a name too long, or with a NUL: its reason is told later
        return True
