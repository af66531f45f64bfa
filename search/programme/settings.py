"""Settings of the solver, by the names of their options."""

from dataclasses import dataclass
from math import ceil

from common.bounds import ABOVE_ZERO, NOT_NEGATIVE, ONE_OR_MORE, at_least, bounded, check_bounds
from common.errors import require

DISTANCE_SHARE = 0.2
"""Of the layers, in which solutions differ at least (the paper's 1 - alpha)."""


@dataclass(frozen=True)
class SolverSettings:
    """How many combinations of blocks are looked for, and how exactly."""

    solutions: int = bounded(10, ONE_OR_MORE)
    """Combinations of blocks to find, the best first."""
    distance: int | None = bounded(None, at_least(1))
    """Layers in which each differs from every earlier one; by default a fifth of them."""
    gap: float = bounded(1e-3, NOT_NEGATIVE)
    """Relative gap to the optimum within which a solution counts as optimal."""
    time_limit: float = bounded(60.0, ABOVE_ZERO)
    """Seconds for each solution; the best one found by then is taken."""

    def __post_init__(self) -> None:
        check_bounds(self, "--per_layer.")

    def distance_of(self, layers: int) -> int:
        """The distance between solutions of so many layers.

        Raises SearchError for one above the layers that there are.
        """
        if self.distance is None:
            return ceil(DISTANCE_SHARE * layers)
        require(
            self.distance <= layers,
            f"--per_layer.distance is {self.distance}; the students have {layers} layers, and "
            "cannot differ in more",
        )
        return self.distance
