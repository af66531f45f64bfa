"""A study from end to end."""

from search.run.preparation import Preparation
from search.run.study import run_search

__all__ = [
    "Preparation",
    "run_search",
]
