"""Comparisons with training from random weights say what was measured."""

import json

import pytest

from common.errors import SearchError
from search.results.scratch_comparison import ScratchComparison, against_scratch, tokens_to_reach

CURVE = [(100, 4.0), (400, 2.0), (1600, 1.0), (6400, 1.2)]


def against(loss: float, tokens: float = 50, flops: float = 60_000) -> ScratchComparison:
    return against_scratch(CURVE, loss, tokens=tokens, flops=flops, flops_per_training_token=1200)


def test_tokens_are_interpolated_in_their_logarithm() -> None:
    assert tokens_to_reach(CURVE, 3.0) == pytest.approx(200)  # half way from 100 to 400
    assert tokens_to_reach(CURVE, 1.25) == pytest.approx(400 * 4**0.75)
    assert tokens_to_reach(CURVE, 2.0) == 400
    assert tokens_to_reach(CURVE, 1.0) == 1600
    assert tokens_to_reach(CURVE, 0.99) is None
    assert tokens_to_reach(CURVE, 5.0) == 100
    assert tokens_to_reach([(0, 8.0), (100, 4.0)], 5.0) == pytest.approx(75)


def test_a_lower_loss_never_takes_fewer_tokens() -> None:
    found = [tokens_to_reach(CURVE, 4.0 - 0.1 * step) for step in range(31)]
    values = [tokens for tokens in found if tokens is not None]
    assert len(values) == 31
    assert values == sorted(values)


def test_the_first_crossing_counts_and_a_curve_has_an_order() -> None:
    assert tokens_to_reach([(1, 3.0), (2, 1.0), (4, 3.0), (8, 1.0)], 1.0) == 2
    with pytest.raises(SearchError, match="order of its tokens"):
        tokens_to_reach([(2, 1.0), (1, 2.0)], 0.5)
    with pytest.raises(SearchError, match="without points"):
        tokens_to_reach([], 0.5)


def test_scratch_that_gets_there_is_measured() -> None:
    found = against(3.0)
    assert (found.scratch_tokens, found.tokens_ratio) == pytest.approx((200, 4.0))
    assert found.flops_ratio == pytest.approx(200 * 1200 / 60_000)
    assert str(found) == (
        "from scratch the same loss takes 4.0 times the tokens (measured) and 4.0 times the "
        "compute, search and teacher included"
    )
    dearer = against(3.0, flops=600_000)
    assert dearer.tokens_ratio == found.tokens_ratio
    assert dearer.flops_ratio == pytest.approx(found.flops_ratio / 10)


def test_scratch_that_does_not_get_there_is_a_bound_rounded_down() -> None:
    found = against(0.5, tokens=641)
    assert found.scratch_tokens is None
    assert found.tokens_ratio == pytest.approx(6400 / 641)
    assert "more than 9.9 times the tokens (it had not reached it after 6,400)" in str(found)
    assert "more than 128 times the compute" in str(found)
    assert found.to_dict()["reached"] is found.reached is False
    short = against(0.5, tokens=6400)
    assert "it is not known" in str(short)
    assert "more than 1" not in str(short)


def test_a_curve_that_begins_below_is_an_upper_bound() -> None:
    found = against(4.5)
    assert found.earliest
    assert "takes at most 2.0 times the tokens" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["text"] == str(found)


def test_a_student_that_cost_nothing_is_a_mistake() -> None:
    with pytest.raises(SearchError, match="above 0"):
        against(3.0, tokens=0)
