"""The space holds all and only the legal architectures of the band."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)

from common.errors import PruningError, SearchError
from pruning import AXES, Architecture, architecture_of, is_legal, parameter_count, student_config
from pruning.families import LayerShares
from search.config.space import SpaceConfig
from search.space.choices import SEARCHED, Narrowing, choices_of
from search.space.space import Space
from search.study.distributions import distributions_of
from tests.pruning.models import build_config, random_ordering

SpaceOf = Callable[..., Space]


def multi_head(sizes: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(**{**sizes, "num_key_value_heads": 8})


@pytest.mark.parametrize("family", [LlamaConfig, MistralConfig])
@pytest.mark.parametrize("tied", [True, False])
def test_every_feasible_architecture_is_legal_and_inside_the_band(
    sizes: dict[str, Any], space_of: SpaceOf, family: type, tied: bool
) -> None:
    config = family(**{**sizes, "tie_word_embeddings": tied})
    most = parameter_count(config, architecture_of(config))
    space = space_of(config)
    assert len(set(space.feasible)) == len(space.feasible) > 100
    for architecture, count in zip(space.feasible, space.parameters, strict=True):
        assert is_legal(config, architecture)
        assert count == parameter_count(config, architecture)
        assert 0.95 * 0.5 * most <= count <= 0.5 * most
    for index in np.linspace(0, len(space.feasible) - 1, 6).astype(int):
        architecture = space.feasible[index]
        student = student_config(config, architecture, list(range(architecture.layers)))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(student)
        assert model.num_parameters() == space.parameters_of[architecture]


def test_nothing_feasible_is_left_out(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    config = LlamaConfig(**sizes)
    given = {"layers": [2, 4, 6], "hidden": [30, 48, 64], "heads": [2, 6, 8], "ffn": [40, 96]}
    space = space_of(config, 1.0, 0.999, **given)
    teacher = architecture_of(config)
    every = {
        type(teacher)(layers, hidden, heads, 2, ffn)
        for layers in given["layers"]
        for hidden in given["hidden"]
        for heads in given["heads"]
        for ffn in given["ffn"]
        if hidden % heads == 0
    }
    assert set(space.feasible) == every
    assert space.legal_count == len(every)


def test_llama_needs_hidden_divisible_by_heads_and_mistral_does_not(
    sizes: dict[str, Any], space_of: SpaceOf
) -> None:
    assert all(a.hidden % a.heads == 0 for a in space_of(LlamaConfig(**sizes)).feasible)
    assert any(a.hidden % a.heads for a in space_of(MistralConfig(**sizes)).feasible)


def test_grouped_kv_heads_stay_and_multi_head_ones_follow(
    sizes: dict[str, Any], space_of: SpaceOf
) -> None:
    assert {a.kv_heads for a in space_of(LlamaConfig(**sizes)).feasible} == {2}
    tied = space_of(multi_head(sizes))
    assert all(a.kv_heads == a.heads for a in tied.feasible)
    assert tied.choices["heads"] == list(range(1, 9))


@pytest.mark.parametrize(
    ("ffn", "step"), [(96, 2), (1024, 32), (1376, 32), (2048, 64), (11008, 256), (37, 1)]
)
def test_default_ffn_step(sizes: dict[str, Any], space_of: SpaceOf, ffn: int, step: int) -> None:
    choices = space_of(LlamaConfig(**{**sizes, "intermediate_size": ffn})).choices["ffn"]
    assert set(np.diff(choices)) == {step}
    assert step <= max(1, ffn / 32)
    assert choices[-1] == ffn
    assert ffn // 4 <= choices[0] < ffn // 4 + step


def test_default_choices_reach_the_teacher(space: Space) -> None:
    assert all(space.choices[axis][-1] == getattr(space.teacher, axis) for axis in SEARCHED)
    assert space.choices["layers"] == [2, 3, 4, 5, 6]
    assert space.choices["heads"] == [2, 4, 6, 8]


def test_range_and_list(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    config = LlamaConfig(**sizes)
    ranged = space_of(config, 0.9, 0.8, ffn=[32, 96, 16], layers=[2, 4, 6])
    assert ranged.choices["ffn"] == [32, 48, 64, 80, 96]
    assert ranged.choices["layers"] == [2, 4, 6]
    assert space_of(config, 0.9, 0.8, ffn=[64, 32]).choices["ffn"] == [32, 64]


def test_a_share_and_a_count_mean_the_same(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    config = LlamaConfig(**sizes)
    most = int(parameter_count(config, architecture_of(config)))
    assert space_of(config, 0.5).feasible == space_of(config, most // 2 + 0.0).feasible
    assert space_of(config, 1.0, 0.0).feasible == (architecture_of(config),)


def spread(shape: Architecture, whole: Architecture, axes: tuple[str, ...]) -> float:
    ratios = [getattr(shape, axis) / getattr(whole, axis) for axis in axes]
    return max(ratios) / min(ratios)


def test_anchors_cut_some_axes_by_about_one_ratio_and_leave_the_others(space: Space) -> None:
    whole = space.teacher
    cut_axes = {
        "uniform shrink": ("hidden", "heads", "ffn"),
        "FFN and heads": ("heads", "ffn"),
        "depth and width": ("layers", "hidden", "heads", "ffn"),
    }
    for name, cut in cut_axes.items():
        alike = [
            shape
            for shape in space.feasible
            if all((getattr(shape, axis) < getattr(whole, axis)) == (axis in cut) for axis in AXES)
        ]
        found = space.anchors()[name]
        assert found in alike
        spreads = [spread(shape, whole, cut) for shape in alike]
        assert spread(found, whole, cut) == min(spreads) < 1.5


def test_anchors_that_the_band_does_not_have(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    config = LlamaConfig(**sizes)
    thin = space_of(config, 0.5, layers=[2, 3], hidden=[48, 56, 64]).anchors()
    assert thin["uniform shrink"] is not None
    assert thin["uniform shrink"].layers == 3
    assert space_of(config, 0.2).anchors()["FFN and heads"] is None
    assert space_of(config, 0.5, 0.02).anchors()["depth alone"] is None
    deep = space_of(config, 0.6, 0.3).anchors()["depth alone"]
    assert deep is not None
    assert (deep.hidden, deep.heads, deep.ffn) == (64, 8, 96)


def test_the_anchors_of_a_narrowed_space_leave_its_largest_choices(
    sizes: dict[str, Any], space_of: SpaceOf
) -> None:
    narrowed = space_of(LlamaConfig(**sizes), 0.5, layers=[3, 5], hidden=[48, 56]).anchors()
    shape = narrowed["FFN and heads"]
    assert shape is not None
    assert (shape.layers, shape.hidden) == (5, 56)
    flat = space_of(LlamaConfig(**sizes), 0.5, layers=[6]).anchors()
    assert flat["depth alone"] is None
    assert flat["depth and width"] == flat["uniform shrink"]


def experts() -> MixtralConfig:
    return MixtralConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=96,
        num_local_experts=8,
        vocab_size=101,
    )


def test_anchors_of_experts_cut_them_too(space_of: SpaceOf) -> None:
    config = experts()
    shape = space_of(config, 0.3, 0.2).anchors()["FFN and heads"]
    assert shape is not None
    assert (shape.layers, shape.hidden) == (2, 64)
    assert shape.heads < 4 and shape.experts < 8 and shape.expert_ffn < 96


def test_a_budget_below_the_smallest_names_it(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    config = LlamaConfig(**sizes)
    every = space_of(config, 1.0, 0.999999)
    smallest = min(every.feasible, key=lambda a: every.parameters_of[a])
    count = every.parameters_of[smallest]
    with pytest.raises(SearchError, match=f"nearest is {smallest} with {count:,}"):
        space_of(config, 0.01)


def test_a_gap_names_the_nearest(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    given = {"layers": [2, 6], "hidden": [64], "heads": [8], "ffn": [96]}
    with pytest.raises(SearchError, match="nearest is L6 H64 A8/2 F96"):
        space_of(LlamaConfig(**sizes), 0.9, 0.01, **given)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"heads": [3]}, "heads has 3; it must be a multiple of the 2 KV heads"),
        ({"heads": [4, 5]}, "heads has 5"),
        ({"ffn": [128]}, "ffn has 128; it must be between 1 and 96"),
        ({"layers": [0, 4]}, "layers has 0"),
        ({"hidden": [-8, 64, 8]}, "hidden has -8"),
        ({"hidden": []}, "hidden is empty"),
        (
            {"hidden": [33, 35], "heads": [2, 4]},
            "no choice .* L6 H35 A4/2 F96 .* that the heads divide",
        ),
    ],
)
def test_choices_that_cannot_be(
    sizes: dict[str, Any], space_of: SpaceOf, choices: dict[str, list[int]], said: str
) -> None:
    with pytest.raises(SearchError, match=said):
        space_of(LlamaConfig(**sizes), **choices)


def test_distributions_reach_every_choice(sizes: dict[str, Any], space_of: SpaceOf) -> None:
    space = space_of(LlamaConfig(**sizes), 0.6, 0.5, ffn=[40, 64, 96], hidden=[64])
    for axis, distribution in distributions_of(space).items():
        assert all(distribution._contains(choice) for choice in space.choices[axis])
    assert SpaceConfig().ffn is None


def test_hidden_sizes_follow_the_heads_where_head_dim_does(space_of: SpaceOf) -> None:
    config = GPT2Config(n_embd=60, n_head=6, n_layer=4, vocab_size=101)
    space = space_of(config, 0.6, 0.2)
    assert space.choices["hidden"] == [10, 20, 30, 40, 50, 60]
    assert space.feasible and all(a.hidden == 10 * a.heads for a in space.feasible)


def test_experts_are_searched_where_the_teacher_has_them(space_of: SpaceOf) -> None:
    config = experts()
    space = space_of(config, 0.5, 0.1)
    assert space.axes == ("layers", "hidden", "heads", "experts", "expert_ffn")
    assert {a.ffn for a in space.feasible} == {0}
    assert len({a.experts for a in space.feasible}) > 2
    assert min(a.experts for a in space.feasible) >= config.num_experts_per_tok
    for architecture in space.feasible:
        assert space.architecture(space.params(architecture)) == architecture
        assert is_legal(config, architecture)


def test_layers_of_several_kinds_keep_each_its_share(space_of: SpaceOf) -> None:
    head_dim: dict[str, Any] = {"head_dim": 16}
    config = Qwen3MoeConfig(
        **head_dim,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=3,
        mlp_only_layers=[0],
        num_experts=8,
        moe_intermediate_size=32,
        vocab_size=101,
    )
    space = space_of(config, 0.5, 0.1)
    assert len({a.layers for a in space.feasible}) > 1
    ordering = random_ordering(config)
    for shape in space.feasible[::40]:
        kept = ordering.kept_layers(shape.layers)
        assert space.parameters_of[shape] == parameter_count(config, shape, kept=kept)
    with pytest.raises(SearchError, match="layers of several kinds"):
        space_of(config, 0.5, 0.1, layer_choice=["span"])


def test_as_many_layers_of_a_part_stay_as_are_asked_for() -> None:
    config = build_config("nemotron-h")  # of four layers two have a state, and one attention
    narrowing = Narrowing(shares=LayerShares({"ssm": 2}))
    choices = choices_of(config, SpaceConfig(), narrowing=narrowing)
    assert choices["layers"] == [3, 4]
    with pytest.raises(SearchError, match="3 layers stay at least"):
        choices_of(config, SpaceConfig(layers=[2, 3]), narrowing=narrowing)
    above = Narrowing(shares=LayerShares({"ssm": 3}))
    with pytest.raises(PruningError, match="at least 3 layers with ssm are to stay"):
        choices_of(config, SpaceConfig(), narrowing=above)
