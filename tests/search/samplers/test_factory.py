"""What every sampler keeps to: proposals inside the budget, each once, decided by what was seen."""

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest

from pruning import Architecture
from search.config.sampler import LEARN, NAMES, ZERO_SHOT, SamplerSettings
from search.samplers.propose import Proposer
from search.space.space import Space
from search.study.observation import FAILED, FINISHED, RUNNING, STOPPED, Observation

RUN, RUNG = 800, 100
"""Tokens of a whole run, and of the rung where some are stopped."""
SLOW = "gp"
"""Takes a second for a proposal, and so proposes fewer."""


class Own(optuna.samplers.RandomSampler):
    """A user's sampler, by import path."""


def unseeded() -> optuna.samplers.BaseSampler:
    """A function that gives one, which takes no seed."""
    return optuna.samplers.RandomSampler(seed=5)


SAMPLERS = (*NAMES, f"{__name__}:Own", f"{__name__}.unseeded")
each = pytest.mark.parametrize("name", SAMPLERS)


def with_each(option: str, values: Sequence[str]) -> pytest.MarkDecorator:
    """Every sampler with every value of an option."""
    cases = [(name, value) for name in SAMPLERS for value in values]
    slow = [(SLOW, value) for value in values[1:]]
    return pytest.mark.parametrize(("name", option), [case for case in cases if case not in slow])


def seen_of(space: Space, shape: Architecture, objectives: int = 1) -> Observation:
    """A run to the end, of a smooth score; the second objective falls with the first axis."""
    place = space.position(shape)
    kl = 0.1 + sum((value - 0.4) ** 2 for value in place)
    values = (kl, 0.1 + place[0])[:objectives]
    return Observation(shape, ((RUNG, 2.0 * kl**0.8), (RUN, kl)), values, FINISHED)


def some(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    drawn = np.random.default_rng(seed).choice(len(space.feasible), count, replace=False)
    return [space.feasible[n] for n in drawn]


@each
def test_each_feasible_architecture_comes_once_then_none(small_space: Space, name: str) -> None:
    """With the largest seed that settings take."""
    shapes = small_space.feasible
    found = [seen_of(small_space, shape) for shape in shapes[2:] if name == SLOW]
    while len(found) <= len(shapes) and (
        shape := Proposer(small_space, SamplerSettings(name), 2**63 - 1)(found)
    ):
        found.append(seen_of(small_space, shape))
    assert len(found) == len({o.architecture for o in found}) == len(shapes)


@with_each("learn", LEARN)
def test_a_proposal_is_untried_allowed_and_decided_by_observations_and_seed(
    space: Space, name: str, learn: str
) -> None:
    drawn = some(space, 14)
    seen = [seen_of(space, shape) for shape in drawn[:9]]
    seen += [Observation(shape, ((RUNG, 0.7),), None, STOPPED) for shape in drawn[9:11]]
    seen += [Observation(drawn[11], ((RUNG, 0.5),), None, RUNNING)]
    seen += [Observation(drawn[12], (), None, RUNNING), Observation(drawn[13], (), None, FAILED)]
    allowed = {*drawn, *some(space, 30, seed=1)}
    zero_shot = {shape: float(n + 1) for n, shape in enumerate(some(space, 12, seed=2))}
    settings = SamplerSettings(name, learn=learn)
    first, again = (Proposer(space, settings, 3, zero_shot, allowed)(seen) for _ in range(2))
    assert first == again
    assert first in allowed - set(drawn)
    assert Proposer(space, settings, 3, zero_shot, set(drawn))(seen) is None


@with_each("zero_shot", ZERO_SHOT)
def test_several_objectives_and_costs_that_are_known_before_the_end(
    space: Space, name: str, zero_shot: str
) -> None:
    drawn = some(space, 12)
    seen = [seen_of(space, shape, objectives=2) for shape in drawn[:8]]
    seen += [Observation(s, ((RUNG, 0.7),), (math.nan, 0.5), STOPPED) for s in drawn[8:]]
    scores = {shape: float(n + 1) for n, shape in enumerate(some(space, 12, seed=2))}
    settings = SamplerSettings(name, zero_shot=zero_shot)
    assert Proposer(space, settings, 1, scores)(seen) in set(space.feasible) - set(drawn)


@each
def test_failed_ones_do_not_teach_but_are_not_tried_again(small_space: Space, name: str) -> None:
    """Nor does the largest startup that settings take matter."""
    shapes, settings = small_space.feasible, SamplerSettings(name, startup=2**63 - 1)
    seen = [Observation(shape, (), None, FAILED) for shape in shapes]
    assert Proposer(small_space, settings, 0)(seen[1:]) == shapes[0]
    assert Proposer(small_space, settings, 0)(seen) is None
