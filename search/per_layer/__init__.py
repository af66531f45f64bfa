"""Students whose layers differ: what a study chooses of the programme's solutions, and records."""

from search.per_layer.combinations import Combination, Round

__all__ = [
    "Combination",
    "Round",
]
