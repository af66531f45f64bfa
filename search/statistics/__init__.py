"""Statistics of rankings: significance, trade-offs, rank correlation."""

from search.statistics.rank_correlation import CandidateScores, rank_correlations
from search.statistics.significance import holm

__all__ = [
    "CandidateScores",
    "holm",
    "rank_correlations",
]
