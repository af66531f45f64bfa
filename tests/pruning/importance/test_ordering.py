"""The permutations that scores give."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning import AXES, Architecture, Importance, Ordering, PruningError, architecture_of
from pruning.families.table import layer_heads
from tests.pruning.models import VARIANTS, build_config, random_ordering

GQA = Architecture(layers=2, hidden=4, heads=6, kv_heads=2, ffn=3)


def scores(**given: list[Any]) -> Importance:
    equal = {
        "hidden": torch.ones(4),
        "heads": torch.ones(2, 6),
        "ffn": torch.ones(2, 3),
        "layers": torch.ones(2),
    }
    return Importance(**{**equal, **{axis: torch.tensor(v) for axis, v in given.items()}})


def test_equal_scores_keep_the_models_order() -> None:
    ordering = Ordering.from_importance(scores(), GQA)
    assert ordering.hidden.tolist() == [0, 1, 2, 3]
    assert ordering.heads.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert ordering.ffn.tolist() == [[0, 1, 2]] * 2
    assert ordering.kept_layers(1) == [0]
    partly = Ordering.from_importance(scores(hidden=[1.0, 2.0, 1.0, 2.0]), GQA)
    assert partly.hidden.tolist() == [1, 3, 0, 2]


def test_heads_are_sorted_inside_their_group() -> None:
    heads = [[1.0, 3.0, 2.0, 7.0, 9.0, 8.0], [6.0, 5.0, 4.0, 1.0, 2.0, 3.0]]
    ordering = Ordering.from_importance(scores(heads=heads), GQA)
    assert ordering.kv_heads.tolist() == [[1, 0], [0, 1]]  # by the sum over their query heads
    assert ordering.heads.tolist() == [[4, 5, 3, 1, 2, 0], [0, 1, 2, 5, 4, 3]]


def test_heads_and_kv_heads_are_one_axis_without_groups() -> None:
    mha = Architecture(layers=2, hidden=4, heads=6, kv_heads=6, ffn=3)
    heads = [[1.0, 3.0, 2.0, 7.0, 9.0, 8.0]] * 2
    ordering = Ordering.from_importance(scores(heads=heads), mha)
    assert ordering.heads.tolist() == [[4, 5, 3, 1, 2, 0]] * 2
    assert torch.equal(ordering.kv_heads, ordering.heads)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_order_is_a_permutation_and_heads_stay_in_their_group(variant: str) -> None:
    config = build_config(variant)
    sizes = architecture_of(config)
    group = sizes.heads // sizes.kv_heads
    for seed in range(20):
        ordering = random_ordering(config, seed)
        for axis in (axis for axis in AXES if axis != "experts_per_token"):
            order = getattr(ordering, axis)
            count = getattr(sizes, axis)
            assert torch.equal(order.sort(-1).values, torch.arange(count).expand_as(order))
        together = torch.tensor(
            [[layer_heads(config, layer).kv_together] for layer in range(sizes.layers)]
        )
        group_of_place = ordering.heads // (group * together)
        served = (ordering.kv_heads // together).repeat_interleave(group, dim=1)
        assert torch.equal(group_of_place, served)
        if sizes.ssm_heads:
            each = sizes.ssm_heads // sizes.ssm_groups
            served = ordering.ssm_groups.repeat_interleave(each, dim=1)
            assert torch.equal(ordering.ssm_heads // each, served)


def test_kept_layers_are_the_most_important_in_the_models_order() -> None:
    deep = Architecture(layers=5, hidden=4, heads=6, kv_heads=2, ffn=3)
    ordering = Ordering.from_importance(
        scores(layers=[0.1, 0.5, 0.3, 0.9, 0.2], heads=[[1.0] * 6] * 5, ffn=[[1.0] * 3] * 5), deep
    )
    assert [ordering.kept_layers(depth) for depth in range(1, 6)] == [
        [3],
        [1, 3],
        [1, 2, 3],
        [1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]


def test_a_saved_ordering_is_read_back(tmp_path: Path) -> None:
    ordering = random_ordering(build_config("llama-mha"))
    ordering.save(tmp_path / "ordering.safetensors")
    read = Ordering.load(tmp_path / "ordering.safetensors")
    for axis in fields(Ordering):
        assert torch.equal(getattr(read, axis.name), getattr(ordering, axis.name))


def test_the_cheapest_span_goes_where_spans_were_scored() -> None:
    infinite = float("inf")
    costs = [
        [0.0, infinite, infinite, infinite],
        [0.9, 0.1, 0.2, 0.8],
        [0.7, 0.5, 0.3, infinite],
        [0.6, 0.7, infinite, infinite],
    ]
    deep = Architecture(layers=4, hidden=4, heads=6, kv_heads=2, ffn=3)
    importance = scores(
        heads=[[1.0] * 6] * 4, ffn=[[1.0] * 3] * 4, layers=[0.4, 0.3, 0.2, 0.1], spans=costs
    )
    ordering = Ordering.from_importance(importance, deep)
    kept = [ordering.kept_layers(depth) for depth in range(1, 5)]
    assert kept == [[3], [0, 1], [0, 2, 3], [0, 1, 2, 3]]
    ranked = ordering.with_layers(torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.zeros(0, 0))
    assert ranked.kept_layers(2) == [1, 3]


@pytest.mark.parametrize("depth", [0, 3, -1])
def test_a_depth_that_cannot_be_kept_is_refused(depth: int) -> None:
    with pytest.raises(PruningError, match="layers is"):
        Ordering.from_importance(scores(), GQA).kept_layers(depth)
