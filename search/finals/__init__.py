"""Full runs: which candidates are distilled in full, the runs, the measures."""

from search.finals.selection import UNIFORM

__all__ = [
    "UNIFORM",
]
