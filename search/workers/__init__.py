"""Processes of Ray: a candidate cut and trained on whatever node it runs."""

from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.slot import Slot, TrialTask, WorkerTask
from search.workers.slots import SlotPool

__all__ = [
    "CandidateRun",
    "Job",
    "SearchAssets",
    "Slot",
    "SlotPool",
    "TrialTask",
    "WorkerTask",
]
