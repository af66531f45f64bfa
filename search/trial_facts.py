"""Facts of a trial, read from its attributes."""

import math
from collections.abc import Iterable
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from pruning import Architecture
from search.attributes import ARCHITECTURE, ORIGIN, PROGRESS

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that were scored to the end or stopped early; failed ones do not count."""


def architecture_of(trial: FrozenTrial | Trial) -> Architecture:
    """The student that the trial trains."""
    return Architecture.from_dict(trial.user_attrs[ARCHITECTURE])


def progress_of(trial: FrozenTrial | Trial) -> dict[str, Any]:
    """What a trial has reported so far: tokens, resumed_tokens, seconds, busy_seconds, curve,
    and the last figures of the curve; empty before its first report."""
    reported: dict[str, Any] = trial.user_attrs.get(PROGRESS, {})
    return {**reported.get("curve", [{}])[-1], **reported}


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
    scored = [trial for trial in latest_by_origin(trials).values() if trial.state in FINISHED]
    return sorted(
        scored,
        key=lambda t: (
            t.state != TrialState.COMPLETE,
            -progress_of(t).get("tokens", 0),
            progress_of(t).get("kl", math.inf),
            origin_of(t),
        ),
    )
