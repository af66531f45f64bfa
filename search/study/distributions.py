"""Optuna's view of a space: one distribution per searched axis."""

from math import gcd

from optuna.distributions import BaseDistribution, IntDistribution

from search.space.space import Space


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Axis -> ints with the step that reaches every choice."""
    return {axis: _distribution(space.choices[axis]) for axis in space.axes}


def _distribution(choices: list[int]) -> IntDistribution:
    step = 0
    for value in choices[1:]:
        step = gcd(step, value - choices[0])
    return IntDistribution(choices[0], choices[-1], step=max(1, step))
