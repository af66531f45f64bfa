"""Processes of Ray: a candidate cut and trained on whatever node it runs."""

from search.workers.actors import TASK, FullTrainer, WorkerTask
from search.workers.candidate import CandidateRun, Job, SearchAssets

__all__ = [
    "TASK",
    "CandidateRun",
    "FullTrainer",
    "Job",
    "SearchAssets",
    "WorkerTask",
]
