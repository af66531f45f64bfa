"""Statistics of rankings: significance, trade-offs, rank correlation."""

from search.statistics.rank_correlation import CandidateScores, rank_correlations

__all__ = [
    "CandidateScores",
    "rank_correlations",
]
