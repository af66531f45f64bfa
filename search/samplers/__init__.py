"""Samplers: which architecture to try next, from what is known of those tried."""

from search.samplers.propose import Proposer

__all__ = [
    "Proposer",
]
