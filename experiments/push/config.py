"""Configuration of run_push.py. The docstring of a field is its `--help`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.values import check_values


def with_folder(arguments: Sequence[str]) -> list[str]:
    """The arguments with the name of the option before a folder that comes first."""
    named = not arguments or arguments[0].startswith("-")
    return list(arguments) if named else ["--folder", *arguments]


@dataclass(frozen=True)
class PushConfig:
    """A student's folder, and its place on the Hub."""

    folder: Path
    """A student that a search, run_prune, run_distill or run_export wrote, such as best; may also
    be given first, without --folder."""
    repo: str
    """Name on the Hub, such as user/name. What is there of that name gets a new commit."""
    private: bool = True
    """Only its owner may see it."""
    dry_run: bool = False
    """Say what would be uploaded, and upload nothing; no token is needed."""

    def __post_init__(self) -> None:
        check_values(self)
