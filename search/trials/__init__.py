"""Trials: candidates scored before training and after short runs."""

from search.trials.plan import TrialPlan
from search.trials.runner import TrialRunner
from search.trials.zero_shot import ZeroShotPlan, pool, score_zero_shot

__all__ = [
    "TrialPlan",
    "TrialRunner",
    "ZeroShotPlan",
    "pool",
    "score_zero_shot",
]
