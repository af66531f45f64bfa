"""How many layers of each kind a student keeps."""

import pytest

from pruning import PruningError
from pruning.families import LayerShares

MAMBA, ATTENTION, FFN = ("ssm",), ("attention",), ("ffn",)
KINDS = [MAMBA, FFN, MAMBA, FFN, MAMBA, ATTENTION, FFN, MAMBA, FFN, MAMBA]
"""Five, four and one."""


def counts(shares: LayerShares, depth: int) -> tuple[int, int, int]:
    found = shares.counts(KINDS)
    return int(found[MAMBA][depth]), int(found[FFN][depth]), int(found[ATTENTION][depth])


def test_each_kind_keeps_its_share_and_attention_stays() -> None:
    found = [counts(LayerShares(), depth) for depth in range(1, 11)]
    assert found == [
        (0, 0, 1),
        (1, 0, 1),
        (1, 1, 1),
        (2, 1, 1),
        (2, 2, 1),
        (3, 2, 1),
        (3, 3, 1),
        (4, 3, 1),
        (4, 4, 1),
        (5, 4, 1),
    ]


def test_floors_hold_at_every_depth_that_they_allow() -> None:
    shares = LayerShares({"ssm": 4})
    assert shares.fewest(KINDS) == 5
    assert counts(shares, 4) == (0, 0, 0)
    for depth in range(5, 11):
        mamba, ffn, attention = counts(shares, depth)
        assert mamba >= 4 and attention == 1 and mamba + ffn + attention == depth


def test_a_floor_of_a_part_is_met_by_any_kind_that_has_it() -> None:
    dense, sparse = ("attention", "ffn"), ("attention", "experts")
    found = LayerShares({"attention": 2}).counts([dense, sparse, sparse, sparse])
    assert [int(found[dense][depth]) for depth in (2, 3, 4)] == [1, 1, 1]


def test_a_floor_above_what_the_model_has_is_refused() -> None:
    with pytest.raises(PruningError, match="at least 2 layers with attention are to stay"):
        LayerShares({"attention": 2}).fewest(KINDS)
