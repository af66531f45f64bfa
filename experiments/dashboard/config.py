"""Configuration of run_dashboard.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.bounds import bounded, check_bounds
from common.values import check_values
from search.config import LOCALHOST, PORT, check_host


@dataclass(frozen=True)
class DashboardCommand:
    """A database of studies, and where its page is served."""

    storage: str | None = None
    """URL of the database (sqlite, postgresql, mysql); by default study.db in the workspace. One
    with a password goes into the environment variable ESPALIER_STORAGE instead."""
    workspace: Path = Path("runs/espalier")
    """Directory of the study, whose files of the winners the page offers."""
    host: str = LOCALHOST
    """Address of this machine that the page is served on. Others than 127.0.0.1 let other machines
    in; the page asks for no password."""
    port: int = bounded(8080, PORT)
    """Port of the page; 0 is any that is free."""

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        check_host(self.host, "--host")
