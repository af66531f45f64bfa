"""Processes of Ray: a candidate cut and trained on whatever node it runs."""

from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.slot import Slot, TrialTask, WorkerTask
from search.workers.slots import SlotPool
from search.workers.spreading import SlotCompute
from search.workers.tasks import TaskPool

__all__ = [
    "CandidateRun",
    "Job",
    "SearchAssets",
    "Slot",
    "SlotCompute",
    "SlotPool",
    "TaskPool",
    "TrialTask",
    "WorkerTask",
]
