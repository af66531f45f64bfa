"""Estimates of memory and time, held against a study that is over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.needs.comparison import Estimates, PlannedMeasured
from search.results.ledger import COMPARED, FULL, TRIALS, Cost, Ledger


@dataclass(frozen=True)
class MeasuredRun:
    """Memory that a process of a run took."""

    planned_bytes: float
    """By the estimate."""
    peak_bytes: int
    """As `RunProgress` has them; 0 where that is not known."""


def estimates(
    runs: Iterable[MeasuredRun],
    ledger: Ledger,
    *,
    trial_speed: float | None,
    full_speed: float | None,
) -> Estimates:
    """What was planned and measured of these runs, and of the costs in a `ledger`, whose planned
    seconds follow from the FLOP/s of a trial and of a full run that were known before the first."""
    costs = ledger.by_stage()
    return Estimates(
        _memory([run for run in runs if run.peak_bytes]),
        _seconds([costs.get(TRIALS)], trial_speed),
        _seconds([costs.get(COMPARED), costs.get(FULL)], full_speed),
    )


def _memory(runs: Sequence[MeasuredRun]) -> PlannedMeasured | None:
    if not runs:
        return None
    planned = max(run.planned_bytes for run in runs)
    return PlannedMeasured(planned, float(max(run.peak_bytes for run in runs)))


def _seconds(costs: Iterable[Cost | None], speed: float | None) -> PlannedMeasured | None:
    whole = Cost.sum(cost for cost in costs if cost is not None)
    if speed is None or not whole.seconds:
        return None
    return PlannedMeasured(whole.flops / speed, whole.seconds)
