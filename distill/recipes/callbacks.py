"""Callbacks of runs: progress lines, figures and checkpoints."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.progress import Facts, Progress, RunPace, Throttle, duration
from distill.train.limits import RunLimits
from distill.train.metrics import MetricLog

LOGGER = logging.getLogger(__name__)
PROGRESS_SECONDS = 10.0
"""Seconds between two progress lines, at least."""


def _nothing() -> None:
    """The callback that is none."""


@dataclass(frozen=True)
class RunCallbacks:
    """Who is told how a run goes."""

    log: MetricLog | None = None
    """Takes the figures of every evaluation."""
    before_save: Callable[[], None] = _nothing
    """Called before each checkpoint, which it may refuse by an exception."""


def checkpoint_and_log(
    run: Any, limits: RunLimits, *, name: str, **meta: Any
) -> Callable[[], None]:
    """A function to call after each step of a `run` that is not evaluated on its way.

    It saves the run, with `meta` beside it, and says how far it has come, each when that is due.
    """
    checkpoint_due = Throttle(limits.checkpoint_seconds)
    line_due, progress = Throttle(PROGRESS_SECONDS), Progress(run.total_tokens, done=run.tokens)

    def after_step() -> None:
        if limits.checkpoint is not None and checkpoint_due():
            run.save(limits.checkpoint, **meta)
        if line_due():
            pace = RunPace(run.tokens, int(run.total_tokens), progress.speed(run.tokens), name)
            left = duration(progress.left(run.tokens))
            LOGGER.info(f"{name}: {pace}, {left} left", extra={"facts": Facts(at=pace)})

    return after_step
