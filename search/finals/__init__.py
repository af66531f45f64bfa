"""Full runs: which candidates are distilled in full, the runs, the measures."""

from search.space.anchors import UNIFORM

__all__ = [
    "UNIFORM",
]
