"""Verdicts: everything that is said of a finished search in words, in one place."""

from search.report.verdicts.extent import (
    correction_verdicts,
    cut_verdicts,
    fidelity_verdicts,
    scratch_verdicts,
    searched_part,
    searched_verdicts,
)
from search.report.verdicts.found import Found
from search.report.verdicts.verdicts import verdicts

__all__ = [
    "Found",
    "correction_verdicts",
    "cut_verdicts",
    "fidelity_verdicts",
    "scratch_verdicts",
    "searched_part",
    "searched_verdicts",
    "verdicts",
]
