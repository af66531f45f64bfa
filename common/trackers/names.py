"""Names of experiment trackers, and what each of them takes."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from common.errors import SearchError

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
TRACKERS = (TENSORBOARD, WANDB, MLFLOW)
"""What --log_to takes."""
MODULES = {TENSORBOARD: "tensorboardX", WANDB: "wandb", MLFLOW: "mlflow"}
"""Name of a tracker -> the module that it needs."""
Values = Mapping[str, str | float]
"""Facts of a run by name."""


class TrackedRun(Protocol):
    """One run at a tracker, which may be taken up again later."""

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """Note figures after so many tokens."""

    def finish(self, summary: Values, *, files: Sequence[Path] = (), failed: bool = False) -> None:
        """End it with what came of it, and files that are kept with it."""

    def leave(self) -> None:
        """Put it down; it goes on with a later start."""


class Tracker(Protocol):
    """One place that takes runs."""

    def run(self, name: str, *, identity: str, facts: Values) -> TrackedRun:
        """Begin a run, or go on with that of the same `identity`."""


def check_names(names: Sequence[str], option: str = "--log_to") -> None:
    """Raises SearchError for names of trackers that are none."""
    for name in names:
        if name not in TRACKERS:
            raise SearchError(f"{option} has {name!r}; it takes {', '.join(TRACKERS)}")


def require_installed(names: Sequence[str], option: str = "--log_to") -> None:
    """Raises SearchError for trackers that are not installed; their libraries take seconds."""
    for name in names:
        try:
            importlib.import_module(MODULES[name])
        except ImportError:
            raise SearchError(
                f"{option} has {name}, which is not installed; pip install {MODULES[name]}, or "
                "leave it out"
            ) from None
