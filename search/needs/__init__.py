"""Needs of work that is planned: a device, memory by part, operations, and how they are printed."""

from search.needs.device import PlannedDevice
from search.needs.memory import MemoryParts
from search.needs.passes import importance_tokens, teacher_pass
from search.needs.plan import Plan
from search.needs.random_teacher import RandomTeacher
from search.needs.work import Work

__all__ = [
    "MemoryParts",
    "Plan",
    "PlannedDevice",
    "RandomTeacher",
    "Work",
    "importance_tokens",
    "teacher_pass",
]
