"""Variants as arrays: what is not finite is not offered, sums are exact."""

import math
from fractions import Fraction

import numpy as np
import pytest

from common.errors import SearchError
from search.programme import Programme, SolverSettings, Variant, solve
from tests.search.programme.libraries import budget_of, random_layers


def test_a_block_that_overflowed_is_not_offered() -> None:
    cost = {"parameters": 1.0}
    layers = [
        [Variant(math.nan, cost), Variant(0.5, cost), Variant(0.3, {"parameters": math.inf})],
        [Variant(-math.inf, cost), Variant(1.0, cost)],
        [Variant(0.25, cost)],
    ]
    programme = Programme.of(layers, budget=budget_of({"parameters": 3.0}))
    (found,) = solve(programme, SolverSettings(solutions=1)).solutions
    assert (found.choice, found.score) == ((1, 1, 0), 1.75)
    assert programme.cautions() == [
        "layer 0: 2 of its blocks not offered, since a score or cost is not finite",
        "layer 1: 1 of its blocks not offered, since a score or cost is not finite",
    ]
    overflowed = [layers[2], [Variant(math.inf, cost)]]
    with pytest.raises(SearchError, match="layer 1 has no block with a finite score"):
        Programme.of(overflowed, budget=budget_of({"parameters": 3.0}))


def test_every_block_needs_the_limited_costs() -> None:
    layers = [[Variant(0.0, {"parameters": 1.0})]]
    with pytest.raises(SearchError, match="some blocks have no cost memory"):
        Programme.of(layers, budget=budget_of({"memory": 3.0}))


def test_costs_are_summed_exactly() -> None:
    layers = [[Variant(0.1, {"decode_ms": 0.1, "memory": 1e16 + 2 * n})] for n in range(10)]
    programme = Programme.of(layers, budget=budget_of({"decode_ms": 1.0}), fixed={"memory": 1.0})
    costs = programme.costs_of((0,) * 10)
    assert costs["decode_ms"] == float(10 * Fraction(0.1))
    assert costs["memory"] == float(10**17 + 90 + 1)
    assert programme.holds((0,) * 10)


def test_the_best_everywhere_and_distances() -> None:
    layers = random_layers(np.random.default_rng(3), layers=5, variants=(2, 4))
    programme = Programme.of(layers, budget=budget_of({"memory": 1.0}))
    expected = tuple(min(range(len(row)), key=lambda j: row[j].score) for row in layers)
    assert programme.best_everywhere == expected
