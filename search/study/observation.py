"""Observations: the samplers' view of each candidate that was started."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from pruning import Architecture
from search.config.objectives import Objectives
from search.database.attributes import ARCHITECTURE
from search.database.trial_facts import architecture_of, last_by_origin, progress_of
from search.space.costs import CostModel

FINISHED, STOPPED, RUNNING, FAILED = "finished", "stopped", "running", "failed"
STATES = {
    FINISHED: TrialState.COMPLETE,
    STOPPED: TrialState.PRUNED,
    RUNNING: TrialState.RUNNING,
    FAILED: TrialState.FAIL,
}
"""Optuna's state of each state of an observation."""


@dataclass(frozen=True)
class Observation:
    """Curve and objectives so far of a candidate that was started."""

    architecture: Architecture
    """The candidate."""
    curve: tuple[tuple[int, float], ...]
    """(tokens, KL) of each measurement so far."""
    values: tuple[float, ...] | None
    """The objectives, minimised, of one that ran to its end. Of others None, or what is known
    already, with NaN for what only the end shows."""
    state: str
    """finished, stopped, running or failed."""


@dataclass(frozen=True)
class Scored:
    """An observation as a sampler sees it: its objectives known or predicted, or none."""

    observation: Observation
    """What was measured."""
    values: tuple[float, ...] | None
    """The objectives, minimised; None where one is neither known nor predicted."""
    spread: float
    """Standard deviation of the log of the first objective that was predicted; 0 where none was."""


def observations_of(
    trials: Iterable[FrozenTrial], objectives: Objectives, *, costs: CostModel
) -> list[Observation]:
    """One observation per architecture that was tried, in the order of their origins."""
    return [
        _observation(trial, objectives, costs=costs)
        for trial in last_by_origin(trials).values()
        if ARCHITECTURE in trial.user_attrs
    ]


def _observation(trial: FrozenTrial, objectives: Objectives, *, costs: CostModel) -> Observation:
    states = {theirs: ours for ours, theirs in STATES.items()}
    shape = architecture_of(trial)
    values: Sequence[float] | None = trial.values
    if values is None and objectives.several:  # costs are known before the end
        unknown = dict.fromkeys(objectives.tasks, math.nan)
        values = objectives.values(math.nan, costs.costs(shape, objectives.costs) | unknown)
    progress = progress_of(trial)
    curve = () if progress is None else progress.curve
    return Observation(
        architecture=shape,
        curve=tuple((p.tokens, p.kl) for p in curve if math.isfinite(p.kl)),
        values=None if values is None else objectives.minimised(values),
        state=states.get(trial.state, RUNNING),
    )
