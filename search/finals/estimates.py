"""Estimates of memory and time, held against a study that is over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pruning import Architecture
from search.cluster.trial_memory import TrialMemory
from search.needs.comparison import Estimates, PlannedMeasured
from search.results.ledger import COMPARED, FULL, TRIALS, Cost, Ledger


@dataclass(frozen=True)
class MeasuredRun:
    """Memory that a run took."""

    architecture: Architecture
    """Of its student."""
    parameters: int
    """Of its student."""
    peak_bytes: int
    """As `RunProgress` has them; 0 where that is not known."""


def estimates(
    runs: Iterable[MeasuredRun],
    memory: TrialMemory,
    *,
    on_gpu: bool,
    ledger: Ledger,
    flops_per_second: float | None,
) -> Estimates:
    """What was planned and measured of these runs, and of the costs in a `ledger`, whose planned
    seconds follow from the speed that was measured before the first trial."""
    costs = ledger.by_stage()
    return Estimates(
        _memory([run for run in runs if run.peak_bytes], memory, on_gpu=on_gpu),
        _seconds([costs.get(TRIALS)], flops_per_second),
        _seconds([costs.get(COMPARED), costs.get(FULL)], flops_per_second),
    )


def _memory(
    runs: Sequence[MeasuredRun], memory: TrialMemory, *, on_gpu: bool
) -> PlannedMeasured | None:
    if not runs:
        return None
    planned = [memory.peak(run.architecture, run.parameters, on_gpu=on_gpu) for run in runs]
    return PlannedMeasured(max(planned), float(max(run.peak_bytes for run in runs)))


def _seconds(costs: Iterable[Cost | None], speed: float | None) -> PlannedMeasured | None:
    whole = Cost.sum(cost for cost in costs if cost is not None)
    if speed is None or not whole.seconds:
        return None
    return PlannedMeasured(whole.flops / speed, whole.seconds)
