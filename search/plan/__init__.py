"""Plans: what a study takes of a machine before it is begun, held against its memory and disk."""

from search.plan.study_plan import StudyPlan

__all__ = [
    "StudyPlan",
]
