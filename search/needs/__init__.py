"""Needs of work that is planned: a device, memory by part, operations, and their tables."""

from search.needs.device import PlannedDevice
from search.needs.memory import MemoryParts
from search.needs.passes import teacher_pass
from search.needs.tables import disk_table, memory_table, shown_time, work_table
from search.needs.work import Work

__all__ = [
    "MemoryParts",
    "PlannedDevice",
    "Work",
    "disk_table",
    "memory_table",
    "shown_time",
    "teacher_pass",
    "work_table",
]
