"""Front, hypervolume, knee and spread, on points whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import SearchError
from search.statistics.pareto import (
    front,
    hypervolume,
    hypervolume_curve,
    knee,
    reference_point,
    spread,
)

STAIRS = np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0], [3.0, 3.0], [2.0, 5.0]])
CORNER = np.array([5.0, 5.0])


def random_values(objectives: int, count: int = 40, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(size=(count, objectives))


def by_inclusion(values: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Volume of a union of boxes, by inclusion and exclusion."""
    return sum(
        (-1) ** (size + 1) * float(np.prod(corner - np.max(rows, axis=0)))
        for size in range(1, len(values) + 1)
        for rows in combinations(values, size)
    )


def test_the_front_of_a_staircase() -> None:
    assert front(STAIRS).tolist() == [0, 1, 2]
    assert front(STAIRS[[1, 1, 3]]).tolist() == [0, 1]
    assert front(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [1, 3]
    assert front(np.empty((0, 2))).tolist() == []


def test_what_diverged_is_not_on_the_front() -> None:
    values = np.array([[np.nan, 0.0], [np.inf, 0.0], [-np.inf, 1.0], [1.0, 1.0]])
    assert front(values).tolist() == [3]
    assert hypervolume(values, [2.0, 2.0]) == 1.0
    assert knee(values) == 3
    assert reference_point(values).tolist() == [1.1, 1.1]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_no_point_of_the_front_is_dominated_and_every_other_is(objectives: int) -> None:
    values = random_values(objectives)
    on_front = set(front(values).tolist())
    for index, row in enumerate(values):
        beaten = ((values <= row).all(1) & (values < row).any(1)).any()
        assert beaten == (index not in on_front)


def test_the_hypervolume_of_a_staircase() -> None:
    # boxes down to the corner: 4 x 1, then 3 x 2 more, then 1 x 1 more
    assert hypervolume(STAIRS, CORNER) == pytest.approx(4 + 6 + 1)
    assert hypervolume(STAIRS[[3]], CORNER) == 4.0
    assert hypervolume(np.empty((0, 2)), CORNER) == 0.0


def test_beyond_the_reference_nothing_counts() -> None:
    outside = np.array([[0.0, 5.0], [6.0, 0.0]])
    assert hypervolume(outside, CORNER) == 0.0
    assert hypervolume(np.vstack([STAIRS, outside]), CORNER) == hypervolume(STAIRS, CORNER)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_exact(objectives: int) -> None:
    values = random_values(objectives, count=9, seed=objectives)
    corner = np.full(objectives, 1.1)
    assert hypervolume(values, corner) == pytest.approx(by_inclusion(values, corner))


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_curve_never_falls_and_ends_at_the_whole(objectives: int) -> None:
    values = random_values(objectives, count=60)
    values[7] = np.nan
    reference = reference_point(values)
    curve = hypervolume_curve(values, reference)
    assert (np.diff(curve) >= 0).all()
    assert curve[6] == curve[7]
    for index in (0, 20, 59):
        assert curve[index] == pytest.approx(hypervolume(values[: index + 1], reference))


def test_the_knee_is_the_point_farthest_below_the_line_of_the_ends() -> None:
    values = np.array([[0.0, 10.0], [1.0, 4.0], [3.0, 2.0], [10.0, 0.0], [9.0, 9.0]])
    # scaled sums of the inner points: 0.1 + 0.4 and 0.3 + 0.2, equal: the lower first objective
    assert knee(values) == 1
    values[2, 1] = 1.9
    assert knee(values) == 2


def test_the_knee_of_one_and_of_two_points_and_of_an_outward_front() -> None:
    assert knee([[3.0, 4.0]]) == 0
    assert knee([[3.0, 4.0], [2.0, 5.0]]) == 1
    assert knee([[2.0, 2.0], [2.0, 2.0]]) == 0
    assert knee([[5.0], [3.0], [4.0]]) == 1
    assert knee([[10.0, 0.0], [8.0, 8.0], [0.0, 10.0]]) == 2
    with pytest.raises(SearchError, match="finite"):
        knee([[np.nan, 1.0]])


@pytest.mark.parametrize("objectives", [2, 3])
def test_units_and_zeros_do_not_move_the_knee(objectives: int) -> None:
    for seed in range(20):
        values = random_values(objectives, seed=seed)
        scale = 10.0 ** np.arange(objectives) * 7
        assert knee(values * scale - 3 * scale) == knee(values)


def test_rounding_does_not_move_the_knee_of_a_straight_front() -> None:
    line = np.stack([np.arange(8.0), 7 - np.arange(8.0)], axis=1)
    for scale in np.random.default_rng(0).uniform(0.1, 9, size=(20, 2)):
        assert knee(line * scale + 0.1) == 0


def test_the_reference_lies_a_tenth_of_the_range_beyond_the_worst() -> None:
    assert reference_point([[0.0, -4.0], [10.0, -2.0]]).tolist() == pytest.approx([11.0, -1.8])
    assert reference_point([[5.0, 0.0, -2.0]]).tolist() == pytest.approx([5.5, 0.1, -1.8])
    with pytest.raises(SearchError, match="finite"):
        reference_point([[np.inf, 1.0]])


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_spread_is_of_the_front_begins_with_the_knee_and_nests(objectives: int) -> None:
    values = random_values(objectives, count=60)
    on_front = set(front(values).tolist())
    chosen = spread(values, len(on_front))
    assert chosen[0] == knee(values)
    assert set(chosen) == on_front
    for count in range(1, len(on_front)):
        assert spread(values, count) == chosen[:count]


def test_a_spread_takes_what_adds_most() -> None:
    values = random_values(3, count=60)
    reference = reference_point(values[front(values)])
    first, second = spread(values, 2)
    pairs = {i: hypervolume(values[[first, i]], reference) for i in front(values) if i != first}
    assert second == max(pairs, key=lambda index: pairs[index])


def test_equal_points_are_taken_once() -> None:
    values = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert sorted(spread(values, 4)) == [0, 2]


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(SearchError, match=r"shape \[3\]"):
        front([1.0, 2.0, 3.0])
    with pytest.raises(SearchError, match="reference has 3 objectives"):
        hypervolume(STAIRS, [1.0, 1.0, 1.0])
    with pytest.raises(SearchError, match="at least 1"):
        spread(STAIRS, 0)
