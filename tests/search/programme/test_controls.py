"""Controls choose by other rules than the programme, inside the same budget."""

import numpy as np
import pytest

from common.errors import SearchError
from search.programme import CONTROLS, Programme, SolverSettings, Variant, solve
from search.programme.controls import (
    greedy_choice,
    most_parameters,
    no_ops_only,
    random_choice,
)
from tests.search.programme.libraries import budget_of, combinations, random_programme

EXACT = SolverSettings(solutions=1, gap=0.0)


def test_controls_meet_the_budget_and_are_no_better_than_the_programme() -> None:
    found: dict[str, int] = dict.fromkeys(CONTROLS, 0)
    for seed in range(40):
        programme = random_programme(seed)
        inside = combinations(programme)
        if not inside:
            continue
        for name, choose in CONTROLS.items():
            try:
                control = choose(programme, EXACT, seed)
            except SearchError:
                assert name in ("greedy", "no-ops"), "the others find what there is"
                continue
            found[name] += 1
            score = {choice: score for score, choice in inside}[control.choice]
            assert control.score == pytest.approx(score, abs=1e-12)
            assert control.score >= inside[0][0] - 1e-12
    assert found["greedy"] >= 20 and found["no-ops"] >= 10


def test_greedy_takes_the_least_rise_per_saved_cost_and_spends_what_is_left() -> None:
    """Swaps save 3 for 0.3, then 4 for 0.6; what that saves too much takes the first one back."""
    layers = [
        [Variant(0.0, {"memory": 4.0}), Variant(0.3, {"memory": 1.0})],
        [Variant(0.0, {"memory": 6.0}), Variant(0.6, {"memory": 2.0})],
        [Variant(0.0, {"memory": 1.0}), Variant(0.7, {"memory": 0.0})],
    ]
    programme = Programme.of(layers, budget=budget_of({"memory": 8.0}))
    assert greedy_choice(programme, EXACT, 0).choice == (1, 0, 0)
    programme = Programme.of(layers, budget=budget_of({"memory": 7.0}))
    assert greedy_choice(programme, EXACT, 0).choice == (0, 1, 0)
    programme = Programme.of(layers, budget=budget_of({"memory": 5.0}))
    assert greedy_choice(programme, EXACT, 0).choice == (1, 1, 0)


def test_no_ops_only_is_the_best_of_full_and_left_out_blocks() -> None:
    for seed in (0, 3, 4, 7, 8):
        programme = random_programme(seed)
        whole = [
            choice
            for _, choice in combinations(programme)
            if programme.full_or_left_out[range(4), choice].all()
        ]
        assert whole
        assert no_ops_only(programme, EXACT, 0).choice == whole[0]


def test_no_ops_only_needs_such_blocks_in_every_layer() -> None:
    layers = [[Variant(0.0, {"memory": 1.0}, full_or_left_out=n == 0)] for n in range(2)]
    programme = Programme.of(layers, budget=budget_of({"memory": 8.0}))
    with pytest.raises(SearchError, match="layer 1 has no block whose sub-blocks are full or left"):
        no_ops_only(programme, EXACT, 0)


def test_most_parameters_come_as_near_the_limit_as_combinations_do() -> None:
    for seed in range(0, 24, 3):
        programme = random_programme(seed)
        costs = [programme.costs_of(choice)["parameters"] for _, choice in combinations(programme)]
        if costs:
            assert most_parameters(programme, EXACT, 0).costs["parameters"] == max(costs)


def test_random_choices_follow_their_seed_and_reach_many_combinations() -> None:
    programme = random_programme(4, layers=8, variants=(4, 4))
    drawn = [random_choice(programme, EXACT, seed).choice for seed in range(20)]
    assert drawn == [random_choice(programme, EXACT, seed).choice for seed in range(20)]
    assert len(set(drawn)) >= 15
    assert all(programme.holds(choice) for choice in drawn)
    (best,) = solve(programme, EXACT).solutions
    assert np.mean([programme.score_of(choice) for choice in drawn]) > 1.1 * best.score


def test_random_choice_is_found_where_swaps_get_stuck() -> None:
    """The one combination inside is two swaps from most others, each of them for the worse."""
    layers = [
        [
            Variant(0.0, {"memory": 1.0, "decode_ms": 20.0}),
            Variant(0.1, {"memory": 5.0, "decode_ms": 1.0}),
            Variant(0.2, {"memory": 20.0, "decode_ms": 1.0}),
        ]
        for _ in range(2)
    ]
    programme = Programme.of(layers, budget=budget_of({"memory": 6.0, "decode_ms": 21.0}))
    choices = {random_choice(programme, EXACT, seed).choice for seed in range(10)}
    assert choices == {(0, 1), (1, 0)}
