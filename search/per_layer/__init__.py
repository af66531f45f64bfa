"""Students whose layers differ: what a study chooses of the programme's solutions, and records."""

from search.per_layer.combinations import Combination, Round
from search.per_layer.depths import Depth
from search.per_layer.solving import Solving

__all__ = [
    "Combination",
    "Depth",
    "Round",
    "Solving",
]
