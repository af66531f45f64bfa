"""Sizes that are drawn: what is covered, how often, and that nothing else has a say in it."""

from collections import Counter

import pytest

from pruning import ATTENTION, FFN, Block
from pruning.slicing import ALONE
from search.library import LayerVariants
from search.library.draws import Draw, DrawSampler, draws_of
from search.space.variants import NOTHING

ATTENTIONS = (Block(8, 4, 0), Block(4, 2, 0), Block(2, 1, 0), NOTHING)
FFNS = (Block(0, 0, 64), Block(0, 0, 32), Block(0, 0, 16), NOTHING)
BOTH = LayerVariants(ATTENTIONS, FFNS)


def sampler(draws: list[Draw], layer: int = 0, seed: int = 0) -> DrawSampler:
    return DrawSampler(draws, layer, parameters=lambda part: part.heads + part.ffn, seed=seed)


def names(variants: LayerVariants, schedule: str = "") -> list[str]:
    return [draw.name for draw in draws_of(variants, schedule)]


def test_every_size_is_trained_beside_the_teachers_own_or_without_attention() -> None:
    assert names(BOTH) == ["A4/2", "A2/1", "F32", "F16"]
    for draw in draws_of(BOTH):
        kind = FFN if draw.sub_block == ATTENTION else ATTENTION
        assert draw.block.part(kind) == BOTH.parent.part(kind)
    alone = [f"F{width} without attention" for width in (64, 32, 16)]
    assert names(BOTH, ALONE) == alone
    assert names(BOTH, "F32") == ["F32"]
    assert names(LayerVariants(ATTENTIONS[:3], FFNS), ALONE) == []
    assert names(LayerVariants((ATTENTIONS[0], NOTHING), FFNS[:1]), ALONE) == alone[:1]
    assert names(LayerVariants((ATTENTIONS[0], NOTHING), (FFNS[0], NOTHING))) == []


@pytest.mark.parametrize("schedule", ["", ALONE, "A4/2"])
def test_all_come_first_once(schedule: str) -> None:
    given = draws_of(BOTH, schedule)
    made = sampler(given)
    assert [made.at(step) for step in range(len(given))] == given
    assert {made.at(step) for step in range(300)} == set(given)


def test_smaller_sizes_are_drawn_more_often_and_attentions_as_often_as_ffns() -> None:
    made = sampler(draws_of(BOTH))
    seen = Counter(made.at(step).name for step in range(100, 6100))
    assert seen["A4/2"] + seen["A2/1"] == pytest.approx(3000, rel=0.05)
    assert seen["A2/1"] == pytest.approx(2 * seen["A4/2"], rel=0.15)
    assert seen["F16"] == pytest.approx(2 * seen["F32"], rel=0.15)


def test_a_draw_depends_on_seed_layer_and_step_alone() -> None:
    given = draws_of(BOTH)
    first, again = sampler(given, layer=2, seed=5), sampler(given, layer=2, seed=5)
    backwards = [again.at(step) for step in reversed(range(50))]
    assert [first.at(step) for step in range(50)] == backwards[::-1]
    for other in (sampler(given, layer=3, seed=5), sampler(given, layer=2, seed=6)):
        assert [first.at(step) for step in range(50)] != [other.at(step) for step in range(50)]
