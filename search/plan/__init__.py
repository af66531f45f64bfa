"""Plans: what a study takes of a machine before it is begun, held against its memory and disk."""

from search.plan.disk import MOMENTS_BYTES
from search.plan.fit import Fit
from search.plan.speed import NOT_TIMED, Speed
from search.plan.stages import (
    REPORT_SECONDS,
    RUN_SECONDS,
    Done,
    planned_stages,
    speed_of,
    stage_lines,
)
from search.plan.study_plan import StudyPlan
from search.plan.teacher import (
    CORRECTION,
    READING,
    correction_parts,
    planned_targets,
    reading_parts,
    require_reading,
)
from search.plan.timing import RandomRun

__all__ = [
    "REPORT_SECONDS",
    "RUN_SECONDS",
    "Done",
    "planned_stages",
    "speed_of",
    "stage_lines",
    "CORRECTION",
    "MOMENTS_BYTES",
    "NOT_TIMED",
    "READING",
    "Fit",
    "RandomRun",
    "Speed",
    "StudyPlan",
    "correction_parts",
    "planned_targets",
    "reading_parts",
    "require_reading",
]
