"""Configuration of run_push.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.values import check_values


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
