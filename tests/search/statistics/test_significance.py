"""What can and what cannot be told apart, on scores whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import SearchError
from search.statistics.significance import holm, indistinguishable, probability_best

Scores = dict[str, NDArray[np.float64]]


def scores(
    means: dict[str, float], own: float = 0.01, sequences: int = 60, seed: int = 0
) -> Scores:
    """KLs that share most of their spread over sequences, as those of students of one teacher."""
    generator = np.random.default_rng(seed)
    common = 0.3 * generator.normal(size=sequences)
    return {
        name: mean + common + own * generator.normal(size=sequences) for name, mean in means.items()
    }


def test_what_is_close_is_kept_and_what_is_far_is_not() -> None:
    some = scores({"far": 1.5, "close": 1.0005, "best": 0.8, "second": 1.0, "closer": 1.0002})
    means = {name: row.mean() for name, row in some.items()}
    near = sorted(("close", "closer", "second"), key=means.__getitem__)
    assert indistinguishable(some, 2) == near[1:]
    assert indistinguishable(some, 1) == []
    assert indistinguishable(some, 4) == []


def test_pairing_tells_apart_what_the_spread_hides() -> None:
    some = scores({"a": 1.0, "b": 1.03})
    assert indistinguishable(some, 1, seed_sd=0.0) == []
    generator = np.random.default_rng(0)
    unpaired = {name: generator.permutation(row) for name, row in some.items()}
    assert indistinguishable(unpaired, 1, seed_sd=0.0) == ["b"]


def test_seed_noise_makes_more_of_them_equal() -> None:
    some = scores({"a": 1.0, "b": 1.008}, own=0.001)
    assert indistinguishable(some, 1, seed_sd=0.0) == []
    assert indistinguishable(some, 1, seed_sd=0.005) == ["b"]
    assert indistinguishable(some, 1, seed_sd=0.001) == []


def test_identical_candidates_are_never_told_apart() -> None:
    row = np.linspace(0.5, 1.5, 20)
    assert indistinguishable({"b": row, "a": row, "c": row}, 1, seed_sd=0.0) == ["b", "c"]
    assert indistinguishable({"b": row, "a": row, "c": row}, 1) == ["b", "c"]
    assert indistinguishable({"a": row}, 1) == []


def test_clearly_worse_candidates_do_not_widen_the_rest() -> None:
    """What Holm is there for: near the line the verdict is as if the others were not there."""
    near = {"a": 1.0, "b": 1.0065}
    alone = scores(near, seed=2)
    crowd = alone | scores({f"far {i}": 3.0 for i in range(60)}, seed=3)
    assert indistinguishable(alone, 1, seed_sd=0.0) == indistinguishable(crowd, 1, seed_sd=0.0)


def test_equals_are_seldom_told_apart() -> None:
    """Of twenty equals the third best is told from none; without Holm, from some in most draws."""
    names = [str(number) for number in range(20)]
    wrong = 0
    for seed in range(40):
        some = scores(dict.fromkeys(names, 1.0), own=0.05, sequences=30, seed=seed)
        wrong += len(indistinguishable(some, 3, seed_sd=0.0)) < 17
    assert wrong / 40 <= 0.2


def test_holm_steps_down_and_stops() -> None:
    assert holm(np.array([0.04, 0.01, 0.03]), 0.05).tolist() == [False, True, False]
    assert holm(np.array([0.02, 0.01, 0.04]), 0.05).tolist() == [True, True, True]
    assert holm(np.array([0.02, 0.02, 0.001]), 0.05).tolist() == [True, True, True]
    assert holm(np.array([0.03]), 0.05).tolist() == [True]
    assert holm(np.array([]), 0.05).tolist() == []


def test_the_chance_of_being_best() -> None:
    row = np.linspace(0.5, 1.5, 20)
    sure = probability_best({"worse": row + 1, "best": row})
    assert sure == {"best": 1.0, "worse": 0.0}
    assert list(sure) == ["best", "worse"]
    assert probability_best({"a": row, "b": row}, seed_sd=0.0) == {"a": 0.5, "b": 0.5}
    assert probability_best({"a": row, "b": row}) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.03)
    some = probability_best(scores({"a": 1.0, "b": 1.002, "c": 1.004}))
    assert sum(some.values()) == pytest.approx(1.0)
    assert list(some.values()) == sorted(some.values(), reverse=True)
    assert min(some.values()) > 0 and max(some.values()) < 1


def test_the_chance_follows_the_normal_law() -> None:
    """Two candidates that differ by one standard error of the seeds: Phi(1) = 0.841."""
    row = np.full(10, 1.0)
    found = probability_best({"a": row, "b": row * (1 + 0.005 * 2**0.5)}, seed_sd=0.005)
    assert found["a"] == pytest.approx(0.841, abs=0.02)


def test_the_same_answer_twice_and_in_any_order() -> None:
    some = scores({name: 1.0 + 0.001 * i for i, name in enumerate("abcdefgh")})
    turned = dict(reversed(some.items()))
    assert indistinguishable(some, 3) == indistinguishable(turned, 3)
    assert probability_best(some) == probability_best(turned)


def test_mistakes_are_named() -> None:
    row = np.ones(4)
    with pytest.raises(SearchError, match="same sequences"):
        indistinguishable({"a": row, "b": row[:3]}, 1)
    with pytest.raises(SearchError, match="b has a KL that is not finite"):
        probability_best({"a": row, "b": row * np.nan})
    with pytest.raises(SearchError, match="at least 1"):
        indistinguishable({"a": row}, 0)
    with pytest.raises(SearchError, match="no candidate"):
        probability_best({})
    with pytest.raises(SearchError, match="below 0"):
        probability_best({"a": row}, seed_sd=-0.1)
