"""The compute of a family against training each size from random weights."""

import pytest

from common.errors import SearchError
from experiments.benchmarks.search.family import family_ratio


def test_the_family_of_minitron() -> None:
    free = family_ratio(
        [4.4, 2.5, 1.2], [40, 40], teacher_flops=0, evaluation_flops=0, search_flops=0
    )
    assert free.training_only == pytest.approx(1.803, abs=1e-3)
    assert free.complete == free.training_only
    paid = family_ratio(
        [4.4, 2.5, 1.2], [40, 40], teacher_flops=0.1, evaluation_flops=0.02, search_flops=0.5
    )
    assert paid.training_only == free.training_only
    assert paid.complete == pytest.approx(8.1 / (4.4925 + 0.62))
    assert paid.complete < paid.training_only


def test_each_member_has_its_own_ratio() -> None:
    found = family_ratio([8, 4, 2], [4, 2], teacher_flops=0, evaluation_flops=0, search_flops=0)
    assert found.training_only == 14 / 10
    for sizes, ratios in (([8], []), ([8, 4], [4, 2])):
        with pytest.raises(SearchError, match="each member after the largest"):
            family_ratio(sizes, ratios, teacher_flops=0, evaluation_flops=0, search_flops=0)
    with pytest.raises(SearchError, match="above 0"):
        family_ratio([8, 4], [0], teacher_flops=0, evaluation_flops=0, search_flops=0)
    with pytest.raises(SearchError, match="below 0"):
        family_ratio([8, 4], [2], teacher_flops=-1, evaluation_flops=0, search_flops=0)
