"""Intervals hold what they promise on data whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from common.intervals import difference_interval, mean_interval

Runs = list[NDArray[np.float64]]


def simulated(
    generator: np.random.Generator, mean: float, common: NDArray[np.float64], seeds: int
) -> Runs:
    """Per seed the values of the sequences: what they share, the seed's own, and the rest."""
    return [
        mean + common + 0.05 * generator.normal() + 0.2 * generator.normal(size=len(common))
        for _ in range(seeds)
    ]


def covered(once: Callable[[np.random.Generator], bool], times: int = 1500) -> float:
    generator = np.random.default_rng(1)
    return sum(once(generator) for _ in range(times)) / times


def test_the_mean_is_covered() -> None:
    def once(generator: np.random.Generator) -> bool:
        runs = simulated(generator, 2.0, 0.5 * generator.normal(size=50), 3)
        interval = mean_interval(runs)
        return interval.low <= 2.0 <= interval.high

    assert 0.93 <= covered(once) <= 0.98


def test_the_difference_is_covered() -> None:
    def once(generator: np.random.Generator) -> bool:
        common = 0.5 * generator.normal(size=50)
        first, second = (simulated(generator, mean, common, 3) for mean in (2.0, 1.7))
        interval = difference_interval(first, second)
        return interval.low <= 0.3 <= interval.high

    assert 0.93 <= covered(once) <= 0.995


def test_without_the_seeds_the_interval_is_too_narrow() -> None:
    """What the part for the seeds is there for."""

    def once(generator: np.random.Generator) -> bool:
        common = 0.01 * generator.normal(size=500)
        interval = mean_interval(simulated(generator, 2.0, common, 1))
        return interval.low <= 2.0 <= interval.high

    assert covered(once, 500) < 0.6


def test_pairing_narrows() -> None:
    generator = np.random.default_rng(0)
    common = generator.normal(size=60)
    first, second = (simulated(generator, mean, common, 3) for mean in (2.0, 1.9))
    paired = difference_interval(first, second)
    widths = [i.high - i.low for i in (mean_interval(first), mean_interval(second))]
    assert paired.high - paired.low < 0.5 * np.hypot(widths[0], widths[1])
    assert paired.mean == pytest.approx(np.mean(first) - np.mean(second))


def test_one_seed_is_flagged() -> None:
    runs = [np.array([1.0, 2.0, 3.0])]
    assert mean_interval(runs).to_dict()["seed_noise_included"] is False
    assert "seed noise not included" in str(mean_interval(runs))
    assert difference_interval(runs, runs * 3).seeds == 1
    assert mean_interval(runs * 2).to_dict()["seed_noise_included"] is True
    assert "not included" not in str(mean_interval(runs * 2))


def test_one_sequence_and_equal_values_are_no_error() -> None:
    assert mean_interval([np.array([2.0])]).mean == 2.0
    same = mean_interval([np.full(5, 2.0)] * 3)
    assert (same.low, same.mean, same.high) == (2.0, 2.0, 2.0)
