"""Configuration of run_report.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.values import check_values


@dataclass(frozen=True)
class ReportConfig:
    """A study in a database, and where its report goes."""

    storage: str | None = None
    """URL of the database (sqlite, postgresql, mysql); by default study.db in the workspace. One
    with a password goes into the environment variable ESPALIER_STORAGE instead."""
    study: str | None = None
    """Name of the study; may be left out where the database has only one."""
    workspace: Path | None = None
    """Directory of the study, where it can be reached from here: the report then has full runs,
    test scores, samples and versions too, and by default goes there."""
    output: Path | None = None
    """Directory for report.html, trials.csv and the figures; by default the workspace, and without
    it a new one here, named after the study."""

    def __post_init__(self) -> None:
        check_values(self)
