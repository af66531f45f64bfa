"""Sizes that are drawn: what is covered, how often, and that nothing else has a say in it."""

from collections import Counter

import pytest

from pruning import ATTENTION, FFN, Block
from search.library import LayerVariants
from search.library.draws import Draws, Pair
from search.space.variants import NOTHING

ATTENTIONS = (Block(8, 4, 0), Block(4, 2, 0), Block(2, 1, 0), NOTHING)
FFNS = (Block(0, 0, 64), Block(0, 0, 32), Block(0, 0, 16), NOTHING)
BOTH = LayerVariants(ATTENTIONS, FFNS)


def draws(variants: LayerVariants, layer: int = 0, seed: int = 0) -> Draws:
    return Draws(variants, layer, parameters=lambda part: part.heads + part.ffn, seed=seed)


def test_every_size_comes_first_once_and_then_the_end_points() -> None:
    made = draws(BOTH)
    first = [made.at(step) for step in range(6)]
    alone = {(part, FFNS[0]) for part in ATTENTIONS[1:3]} | {(ATTENTIONS[0], p) for p in FFNS[1:3]}
    assert set(first[:4]) == alone
    assert first[4:] == [(ATTENTIONS[2], FFNS[2]), (ATTENTIONS[1], FFNS[1])]


def test_smaller_sizes_are_drawn_more_often_and_each_kind_in_a_third_of_the_steps() -> None:
    made = draws(BOTH)
    seen = Counter(made.at(step) for step in range(100, 6100))

    def share(*pairs: Pair) -> float:
        return sum(seen[pair] for pair in pairs) / 6000

    alone = [(part, FFNS[0]) for part in ATTENTIONS[1:3]]
    assert share(*alone) == pytest.approx(1 / 3, abs=0.03)
    assert share(alone[1]) == pytest.approx(2 * share(alone[0]), rel=0.15)
    assert share((ATTENTIONS[0], FFNS[2])) == pytest.approx(
        2 * share((ATTENTIONS[0], FFNS[1])), rel=0.15
    )
    left_out = [share((NOTHING, FFNS[2])), share((ATTENTIONS[2], FFNS[2]))]
    assert left_out[0] == pytest.approx(left_out[1], rel=0.2), "as often as the smallest"


@pytest.mark.parametrize(
    "variants",
    [
        BOTH,
        LayerVariants(ATTENTIONS[:1], FFNS),
        LayerVariants((ATTENTIONS[0], NOTHING), FFNS),
        LayerVariants(ATTENTIONS, FFNS[:1]),
        LayerVariants(ATTENTIONS, (FFNS[0], NOTHING)),
    ],
)
def test_there_is_something_to_learn_in_every_step(variants: LayerVariants) -> None:
    made = draws(variants)
    for step in range(300):
        attention, ffn = made.at(step)
        assert attention in variants.trained(ATTENTION) or ffn in variants.trained(FFN)


def test_a_draw_depends_on_seed_layer_and_step_alone() -> None:
    first, again = draws(BOTH, layer=2, seed=5), draws(BOTH, layer=2, seed=5)
    backwards = [again.at(step) for step in reversed(range(50))]
    assert [first.at(step) for step in range(50)] == backwards[::-1]
    others = draws(BOTH, layer=3, seed=5), draws(BOTH, layer=2, seed=6)
    for other in others:
        assert [first.at(step) for step in range(10, 50)] != [other.at(s) for s in range(10, 50)]
