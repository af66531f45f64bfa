"""Trials: candidates scored before training and after short runs."""

from search.trials.plan import TrialPlan
from search.trials.searcher import StudySearcher
from search.trials.tuner import make_tuner
from search.trials.zero_shot import ZeroShotPlan, pool, score_zero_shot

__all__ = [
    "StudySearcher",
    "TrialPlan",
    "ZeroShotPlan",
    "make_tuner",
    "pool",
    "score_zero_shot",
]
