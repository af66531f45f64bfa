"""Facts of a trial, read from its attributes."""

import math
from collections.abc import Iterable

from optuna.trial import FrozenTrial, Trial, TrialState

from distill.recipes import RunProgress
from pruning import Architecture
from search.database.attributes import ARCHITECTURE, ORIGIN, PROGRESS

FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that were scored to the end or stopped early; failed ones do not count."""


def architecture_of(trial: FrozenTrial | Trial) -> Architecture:
    """The student that the trial trains."""
    return Architecture.from_dict(trial.user_attrs[ARCHITECTURE])


def progress_of(trial: FrozenTrial | Trial) -> RunProgress | None:
    """How far a trial had come at its last report; None before the first."""
    reported = trial.user_attrs.get(PROGRESS)
    return None if reported is None else RunProgress.from_dict(reported)


def origin_of(trial: FrozenTrial | Trial) -> int:
    """Number of the first trial that this one continues, or its own."""
    return int(trial.user_attrs.get(ORIGIN, trial.number))


def last_by_origin(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The last trial of each origin, in the order of the origins."""
    last = {origin_of(trial): trial for trial in sorted(trials, key=lambda t: t.number)}
    return dict(sorted(last.items()))


def latest_by_origin(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The last trial of each origin, in the order of the origins; failed ones left out."""
    last = last_by_origin(trials).items()
    return {origin: trial for origin, trial in last if trial.state != TrialState.FAIL}


def tried(trials: Iterable[FrozenTrial]) -> set[Architecture]:
    """Architectures that must not be proposed again, whatever became of them."""
    return {architecture_of(trial) for trial in trials if ARCHITECTURE in trial.user_attrs}


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Scored trials, best selection KL first; those stopped early come after all others."""
    scored = [
        trial for trial in latest_by_origin(trials).values() if trial.state in FINISHED_STATES
    ]
    return sorted(scored, key=_rank)


def _rank(trial: FrozenTrial) -> tuple[bool, int, float, int]:
    progress = progress_of(trial)
    stopped, origin = trial.state != TrialState.COMPLETE, origin_of(trial)
    if progress is None:
        return stopped, 0, math.inf, origin
    return stopped, -progress.tokens, progress.last.kl, origin
