"""Overview of a study while it runs: its stages, how long they take, its teacher, what is next."""

from search.overview.clock import (
    BLOCKS,
    FULL_RUNS,
    PREPARATION,
    REPORT,
    SCORES,
    TRIALS,
    StudyClock,
    stage_of,
)
from search.overview.cut_to_time import SHARE_FOR_TRIALS, LastStageCut, least_of
from search.overview.next_steps import Result, next_steps
from search.overview.teacher_check import TeacherReading, teacher_lines

__all__ = [
    "BLOCKS",
    "FULL_RUNS",
    "PREPARATION",
    "REPORT",
    "SCORES",
    "TRIALS",
    "LastStageCut",
    "SHARE_FOR_TRIALS",
    "Result",
    "StudyClock",
    "TeacherReading",
    "least_of",
    "next_steps",
    "stage_of",
    "teacher_lines",
]
