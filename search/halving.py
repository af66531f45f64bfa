"""Successive halving on the study's own record, so that its rungs survive any restart.

Asynchronous, as in ASHA (arXiv 1810.05934): a trial is compared, at a rung, with all that have
reached it. Unlike Optuna's pruner of the name, an interrupted trial and its continuation count
once, failed trials do not count, and nobody is stopped for arriving first.
"""

from math import ceil

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

ANCHOR = "anchor"
ORIGIN = "origin"


def origin_of(trial: FrozenTrial) -> int:
    """Number of the trial that this one continues, or its own."""
    return int(trial.user_attrs.get(ORIGIN, trial.number))


def latest_by_origin(trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The last trial of each origin, in the order of the origins; failed ones left out."""
    latest: dict[int, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state == TrialState.FAIL:
            latest.pop(origin_of(trial), None)
        else:
            latest[origin_of(trial)] = trial
    return dict(sorted(latest.items()))


class SuccessiveHalving(optuna.pruners.BasePruner):
    """Keeps the best one in `reduction` at each of `rungs` (token counts); spares the anchors."""

    def __init__(self, rungs: tuple[int, ...], reduction: int):
        self.rungs = rungs
        self.reduction = reduction

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        if trial.user_attrs.get(ANCHOR) or trial.last_step not in self.rungs:
            return False
        step = trial.last_step
        origin = origin_of(trial)
        rivals = latest_by_origin(study.get_trials(deepcopy=False))
        values = [
            rival.intermediate_values[step]
            for other, rival in rivals.items()
            if other != origin and step in rival.intermediate_values
        ]
        own = trial.intermediate_values[step]
        if len(values) + 1 < self.reduction:
            return False
        better = sum(value < own for value in values)
        return better >= ceil((len(values) + 1) / self.reduction)


def rung_tokens(report_tokens: list[int], first_share: float, reduction: int) -> tuple[int, ...]:
    """The reports at which candidates are compared: the first at or after `first_share` of the run,
    then each at or after `reduction` times the tokens; never the last, which ends the run."""
    if reduction < 2:
        return ()
    rungs: list[int] = []
    wanted = first_share * report_tokens[-1]
    for tokens in report_tokens[:-1]:
        if tokens >= wanted * 0.999:
            rungs.append(tokens)
            wanted = tokens * reduction
    return tuple(rungs)
