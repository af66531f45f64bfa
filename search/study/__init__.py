"""The record of a study: the queue of its trials, early stopping, observations."""

from search.study.agreement import open_study
from search.study.early_stopping import Rungs
from search.study.observation import FINISHED, RUNNING, STOPPED, Observation
from search.study.policy import TrialPolicy
from search.study.queue import TrialQueue
from search.study.record import Record
from search.study.stopping import EarlyStopping

__all__ = [
    "FINISHED",
    "RUNNING",
    "STOPPED",
    "EarlyStopping",
    "Observation",
    "Record",
    "Rungs",
    "TrialPolicy",
    "TrialQueue",
    "open_study",
]
