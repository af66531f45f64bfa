"""Trials: candidates scored before training and after short runs."""

from search.trials.plan import TrialPlan
from search.trials.searcher import StudySearcher
from search.trials.tuner import make_tuner

__all__ = [
    "StudySearcher",
    "TrialPlan",
    "make_tuner",
]
