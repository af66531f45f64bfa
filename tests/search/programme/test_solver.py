"""The programme's optimum is that of trying all combinations, and meets its limits truly."""

import json
from dataclasses import asdict, replace
from itertools import combinations as pairs

import numpy as np
import pytest

from common.errors import SearchError
from search.programme import (
    Programme,
    Solution,
    SolverSettings,
    Variant,
    distance,
    solve,
)
from search.programme.controls import greedy_choice
from search.programme.swaps import at_random, greedy
from tests.search.programme.libraries import (
    budget_of,
    combinations,
    one_by_one,
    random_layers,
    random_programme,
)

EXACT = SolverSettings(solutions=1, gap=0.0)


def test_optimum_is_that_of_all_combinations() -> None:
    met = 0
    for seed in range(100):
        programme = random_programme(seed)
        inside = combinations(programme)
        if not inside:
            with pytest.raises(SearchError, match="no combination of blocks meets the budget"):
                solve(programme, EXACT)
            continue
        (found,) = solve(programme, EXACT).solutions
        assert (found.choice, found.proven) == (inside[0][1], True), seed
        assert found.score == pytest.approx(inside[0][0], abs=1e-12)
        assert found.gap == pytest.approx(0, abs=1e-6)
        met += 1
    assert 80 <= met < 100, "a few budgets are not met by any"


def test_some_layer_has_each_sub_block_that_one_must_have() -> None:
    changed = 0
    for seed in range(40):
        programme = random_programme(seed)
        before = combinations(programme)
        cheap = np.ones(programme.scores.shape, dtype=bool)
        if before:  # none of the best combination's variants has it
            cheap[range(programme.layers), before[0][1]] = False
        asked = replace(programme, required=(cheap & programme.offered,))
        has = asked.required[0]
        inside = [one for one in before if has[range(programme.layers), one[1]].any()]
        for choice in [greedy(asked), at_random(asked, np.random.default_rng(seed))]:
            assert choice is None or choice in [each for _, each in inside]
        if not inside:
            with pytest.raises(SearchError):
                solve(asked, EXACT)
            continue
        (found,) = solve(asked, EXACT).solutions
        assert found.choice == inside[0][1] != before[0][1], seed
        changed += 1
    assert changed > 20


@pytest.mark.parametrize("apart", [1, 2, 3])
def test_solutions_are_those_of_all_combinations_in_their_order(apart: int) -> None:
    ended = 0
    for seed in range(0, 60, 4):
        programme = random_programme(seed)
        expected = one_by_one(programme, solutions=4, apart=apart)
        if not expected:
            continue
        solved = solve(programme, SolverSettings(solutions=4, distance=apart, gap=0.0))
        assert [each.choice for each in solved.solutions] == expected, seed
        if len(expected) < 4:
            ended += 1
            assert solved.ended == (
                f"{len(expected)} of 4 combinations: no other inside the budget differs from each "
                f"in {apart} layers or more"
            )
        else:
            assert solved.ended is None
    assert ended or apart < 3


def test_a_solution_meets_its_limits_to_the_last_byte() -> None:
    """The better choice is one byte too large of 3e10, which the solver takes as met."""
    layers = [
        [Variant(0.0, {"memory": 1e10 + 1}), Variant(0.1 + 0.01 * n, {"memory": 1e10})]
        for n in range(3)
    ]
    layers = [[*layer, Variant(9.0, {"memory": 0.0})] for layer in layers]
    programme = Programme.of(layers, budget=budget_of({"memory": 3e10 + 2}))
    (found,) = solve(programme, EXACT).solutions
    assert (found.choice, found.costs["memory"], found.proven) == ((1, 0, 0), 3e10 + 2, True)


def test_many_choices_that_break_a_limit_by_a_hair_end_inside_it() -> None:
    """More of them than are cut off one by one: what is found then says that it is not proven, and
    still is better than the greedy choice, which errs in the last three layers."""
    sizes = [(0.1 - 0.01 * byte - 0.001 * byte**0.5, 1e10 + byte, 0.0) for byte in range(10)]
    sizes += [(0.2, 1e10 - 1e3, 0.0), (9.0, 0.0, 0.0)]
    misleading = [
        [(0.0, 0.0, 4.0), (30.0, 0.0, 1.0)],
        [(0.0, 0.0, 6.0), (60.0, 0.0, 2.0)],
        [(0.0, 0.0, 1.0), (50.0, 0.0, 0.0)],
    ]
    layers = [
        [Variant(score, {"memory": size, "decode_ms": time}) for score, size, time in layer]
        for layer in [sizes, sizes, sizes, *misleading]
    ]
    programme = Programme.of(layers, budget=budget_of({"memory": 3e10 + 5, "decode_ms": 7.0}))
    assert greedy_choice(programme, EXACT, 0).score > 80
    (found,) = solve(programme, EXACT).solutions
    assert 60 < found.score < 70
    assert programme.holds(found.choice)
    assert not found.proven
    assert found.gap is not None and 0 < found.gap < 0.3


def test_a_budget_that_nothing_meets_is_said_with_the_nearest() -> None:
    layers = [
        [Variant(0.0, {"parameters": 900_000.0}), Variant(1.0, {"parameters": 600_000.0})]
        for _ in range(2)
    ]
    programme = Programme.of(
        layers, budget=budget_of({"parameters": 1_200_000.0}), fixed={"parameters": 200_000.0}
    )
    with pytest.raises(SearchError) as problem:
        solve(programme, EXACT)
    assert str(problem.value) == (
        "no combination of blocks meets the budget of at most 1,200,000 parameters; the nearest "
        "has 1,400,000 parameters; change --budget or widen --space.per_layer"
    )


def test_the_nearest_has_the_least_of_the_largest_violations() -> None:
    """Either limit alone can be met."""
    told = 0
    for seed in range(30):
        layers = random_layers(np.random.default_rng(seed), layers=3, variants=(3, 4))
        budget = budget_of({"parameters": 1e6, "memory": (2e10, 3e10)})
        programme = Programme.of(layers, budget=budget)
        everything = Programme.of(layers, budget=budget_of({"parameters": 1e12}))
        wide = replace(everything, fixed=dict.fromkeys(programme.costs, 0.0))
        costs = [programme.costs_of(choice) for _, choice in combinations(wide)]
        violations = [
            float(budget.violations({k: np.asarray(v) for k, v in each.items()})) for each in costs
        ]
        if min(violations) <= 0:
            continue
        told += 1
        nearest = costs[int(np.argmin(violations))]
        with pytest.raises(SearchError, match=f"{nearest['parameters']:,.0f} parameters, "):
            solve(programme, EXACT)
    assert told > 5


def test_no_time_for_the_solver_leaves_the_greedy_choice() -> None:
    layers = random_layers(np.random.default_rng(0), layers=24, variants=(8, 8))
    most = 0.5 * sum(layer[0].costs["memory"] for layer in layers)
    programme = Programme.of(layers, budget=budget_of({"memory": most}))
    hurried = SolverSettings(solutions=3, distance=5, time_limit=1e-9)
    solved = solve(programme, hurried)
    assert len(solved.solutions) == 3
    assert not any(each.proven for each in solved.solutions)
    assert all(programme.holds(each.choice) for each in solved.solutions)
    for one, other in pairs(solved.solutions, 2):
        assert distance(one.choice, other.choice) >= 5
    (optimum,) = solve(programme, SolverSettings(solutions=1)).solutions
    assert optimum.proven
    assert optimum.score <= (1 + 1e-3) * solved.solutions[0].score
    impossible = Programme.of(layers, budget=budget_of({"memory": 1.0}))
    with pytest.raises(
        SearchError, match="was found in 1e-09 s that meets.*--per_layer.time_limit"
    ):
        solve(impossible, hurried)


def test_an_interrupted_run_goes_on_and_ends_equal() -> None:
    programme = random_programme(0, layers=8, variants=(5, 5))
    settings = SolverSettings(solutions=4)
    kept: list[Solution] = []
    whole = solve(programme, settings, keep=kept.append)
    assert len(whole.solutions) == 4
    assert tuple(kept) == whole.solutions
    again: list[Solution] = []
    assert solve(programme, settings, earlier=kept[:2], keep=again.append) == whole
    assert again == kept[2:]
    assert json.loads(json.dumps([asdict(each) for each in kept]))[0]["proven"] is True


def test_solutions_differ_in_a_fifth_of_the_layers_by_default() -> None:
    assert SolverSettings().distance_of(80) == 16
    assert SolverSettings().distance_of(6) == 2
    with pytest.raises(SearchError, match="distance is 7; the students have 6 layers"):
        SolverSettings(distance=7).distance_of(6)
    with pytest.raises(SearchError, match=r"--per_layer\.solutions is 0; it must be >= 1"):
        SolverSettings(solutions=0)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_costs_of_any_size_are_told_apart(scale: float) -> None:
    """Powers of two: the sums stay exact."""
    for seed in (0, 3, 4):
        programme = random_programme(seed)
        inside = combinations(programme)
        bounds = programme.budget.limits
        scaled = replace(
            programme,
            costs={name: scale * values for name, values in programme.costs.items()},
            fixed={name: scale * value for name, value in programme.fixed.items()},
            budget=budget_of({bound.cost: scale * bound.most for bound in bounds}),
        )
        (found,) = solve(scaled, EXACT).solutions
        assert found.choice == inside[0][1]


def test_scores_of_any_size_are_told_apart() -> None:
    """The solver's absolute tolerances must not decide between tiny scores."""
    for scale in (1e-9, 1e9):
        programme = random_programme(0)
        tiny = programme.scored(scale * programme.scores)
        (found,) = solve(tiny, EXACT).solutions
        assert found.choice == combinations(programme)[0][1]
