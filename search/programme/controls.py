"""Controls of the paper: other ways to choose blocks inside the same budget (arXiv 2411.19146)."""

from collections.abc import Callable, Mapping

import numpy as np

from common.errors import SearchError
from search.config.per_layer import GREEDY_BLOCKS, MOST_PARAMETERS, NO_OPS, RANDOM_BLOCKS
from search.programme.programme import Programme, Solution
from search.programme.settings import SolverSettings
from search.programme.solver import best
from search.programme.swaps import at_random, greedy

DRAWS = 20
"""Random starts before the solver is asked for a random combination."""


def random_choice(programme: Programme, settings: SolverSettings, seed: int) -> Solution:
    """A random combination inside the budget.

    Raises SearchError where none is inside.
    """
    generator = np.random.default_rng(seed)
    for _ in range(DRAWS):
        choice = at_random(programme, generator)
        if choice is not None:
            return programme.solution(choice)
    scores = generator.random(programme.scores.shape)
    return _best(programme, programme.scored(scores), settings)


def greedy_choice(programme: Programme, settings: SolverSettings, seed: int) -> Solution:
    """The combination that the ratio-greedy swaps find.

    Raises SearchError where they end outside the budget.
    """
    choice = greedy(programme)
    if choice is None:
        inside = best(programme, settings)  # raises where nothing is
        raise SearchError(
            "the greedy swaps end outside the budget, although a combination of a summed score of "
            f"{inside.score:.4g} is inside"
        )
    return programme.solution(choice)


def no_ops_only(programme: Programme, settings: SolverSettings, seed: int) -> Solution:
    """The best combination in which each sub-block is the teacher's own or left out.

    Raises SearchError where none is inside the budget.
    """
    return _best(programme, programme.only_full_or_left_out(), settings)


def most_parameters(programme: Programme, settings: SolverSettings, seed: int) -> Solution:
    """The combination of the most parameters inside the budget, whatever its scores.

    Raises SearchError where none is inside.
    """
    return _best(programme, programme.scored(-programme.costs["parameters"]), settings)


Control = Callable[[Programme, SolverSettings, int], Solution]
CONTROLS: Mapping[str, Control] = {
    RANDOM_BLOCKS: random_choice,
    GREEDY_BLOCKS: greedy_choice,
    NO_OPS: no_ops_only,
    MOST_PARAMETERS: most_parameters,
}
"""Name of a control, as the settings have it -> how it chooses; the last argument is the seed of
those that draw."""


def _best(programme: Programme, other: Programme, settings: SolverSettings) -> Solution:
    """The optimum of `other`, which has variants or scores of its own, with the true scores."""
    found = best(other, settings)
    return programme.solution(found.choice, proven=found.proven)
