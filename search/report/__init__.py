"""The report: figures, costs and verdicts of a finished search, written and printed."""

from search.report.family import FamilyResult, MemberResult

__all__ = [
    "FamilyResult",
    "MemberResult",
]
