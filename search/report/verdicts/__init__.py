"""Verdicts: everything that is said of a finished search in words, in one place."""

from search.report.verdicts.winner import (
    correction_verdicts,
    scratch_verdicts,
    searched_part,
    searched_verdicts,
    verdicts,
)

__all__ = [
    "correction_verdicts",
    "scratch_verdicts",
    "searched_part",
    "searched_verdicts",
    "verdicts",
]
