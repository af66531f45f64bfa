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
from search.overview.cut_to_time import SHARE_FOR_TRIALS, LastStageCut
from search.overview.estimates import (
    REPORT_SECONDS,
    RUN_SECONDS,
    Done,
    StagePlan,
    planned_stages,
    speed_of,
    stage_lines,
)
from search.overview.next_steps import next_steps
from search.overview.teacher_check import TeacherReading, teacher_lines

__all__ = [
    "BLOCKS",
    "FULL_RUNS",
    "PREPARATION",
    "REPORT",
    "REPORT_SECONDS",
    "RUN_SECONDS",
    "SCORES",
    "TRIALS",
    "Done",
    "LastStageCut",
    "SHARE_FOR_TRIALS",
    "StagePlan",
    "StudyClock",
    "TeacherReading",
    "next_steps",
    "planned_stages",
    "speed_of",
    "stage_lines",
    "stage_of",
    "teacher_lines",
]
