"""Machines: the Ray cluster, memory and processors, the errors of workers."""

from search.cluster.cluster import ray_cluster
from search.cluster.ray_errors import note, sentence
from search.cluster.ray_session import ray_for_workers
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.cluster.trial_memory import FP32, TrialMemory

__all__ = [
    "FP32",
    "Resources",
    "Room",
    "TrialMemory",
    "note",
    "ray_cluster",
    "ray_for_workers",
    "sentence",
]
