"""What is refused of students whose layers differ, in one sentence and before any work."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma2Config, GPT2Config, LlamaConfig, PretrainedConfig

from common.errors import SearchError
from pruning import ATTENTION, FFN
from search.config.budget import BudgetConfig
from search.config.per_layer import PerLayerConfig
from search.config.space import SpaceConfig
from search.config.study import SearchConfig
from search.inputs.members import members_of, plan_of, timed_members
from search.per_layer.planning import layer_variants
from search.space.costs import CostModel
from tests.search.conftest import SIZES

LLAMA = LlamaConfig(**SIZES)
GPT2 = GPT2Config(n_embd=64, n_head=8, n_layer=2, vocab_size=101, n_positions=64)


SECTIONS: dict[str, Any] = {
    "space": SpaceConfig,
    "per_layer": PerLayerConfig,
    "budget": BudgetConfig,
}


def config(**given: Any) -> SearchConfig:
    """A study; its sections as dictionaries."""
    made = {name: SECTIONS[name](**given.pop(name, {})) for name in SECTIONS}
    return SearchConfig(teacher="teacher", corpus="corpus", **made, **given)


LAYERED = {"per_layer": [ATTENTION, FFN]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"space": {"per_layer": ["heads"]}}, "--space.per_layer has 'heads'; it must be any of"),
        ({"per_layer": {"tokens": 5}}, "but --space.per_layer names no sub-block"),
        ({"space": LAYERED, "family": [0.5, 0.25]}, "--family and --space.per_layer are both"),
        ({"space": LAYERED, "per_layer": {"ffn_shares": [0.5, 1.0]}}, "the largest first"),
        (
            {"space": LAYERED, "per_layer": {"controls": ["best"]}},
            "--per_layer.controls has 'best'",
        ),
        (
            {"space": LAYERED, "per_layer": {"controls": ["greedy", "greedy"]}},
            "--per_layer.controls is greedy greedy; give each once",
        ),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SearchError) as refusal:
        config(**given)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def costs_of(settings: SearchConfig, teacher: PretrainedConfig) -> CostModel:
    return CostModel.of(teacher, settings.budget, block=32)


def refusal_of(teacher: PretrainedConfig, settings: SearchConfig) -> str:
    with pytest.raises(SearchError) as refusal:
        variants = layer_variants(settings, teacher, block=32)
        (member,) = members_of(settings, costs_of(settings, teacher), device="cpu")
        plan_of(settings, variants, member)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_type_whose_attention_cannot_be_resized() -> None:
    settings = config(space={"per_layer": [ATTENTION]}, per_layer={"kv_heads": [4, 2]})
    said = refusal_of(GPT2, settings)
    assert (
        "--space.per_layer has attention, but no layer can have another attention in a gpt2" in said
    )
    left_out = config(space={"per_layer": [ATTENTION]}, per_layer={"kv_heads": [4, 0]})
    variants = layer_variants(left_out, GPT2, block=32)
    assert all(len(layer.attention) == 2 and len(layer.ffn) == 1 for layer in variants)


def test_engines_that_do_not_take_them() -> None:
    settings = config(space=LAYERED, serve_with=["ctranslate2"])
    said = refusal_of(LLAMA, settings)
    assert "no layer can have another attention that ctranslate2 takes (" in said


def test_a_budget_that_only_uniform_students_meet() -> None:
    settings = config(
        space={"per_layer": [FFN], "layers": [6]},
        per_layer={"ffn_shares": [1.0, 0.5]},
        budget={"parameters": 0.5},
    )
    said = refusal_of(LLAMA, settings)
    assert "no combination of blocks of --space.per_layer meets the budget of" in said
    assert "the nearest is L6 H64 A8/2 F48 with" in said


def test_a_table_of_latencies_from_elsewhere(tmp_path: Path) -> None:
    settings = config(
        space=LAYERED, budget={"decode_ms": 5, "latency_table": tmp_path / "table.csv"}
    )
    variants = layer_variants(settings, LLAMA, block=32)
    with pytest.raises(SearchError, match=r"latency_table has .* leave one of them out"):
        timed_members(settings, LLAMA, variants=variants, block=32, device="cpu")


def test_no_variants_where_all_layers_are_alike() -> None:
    assert layer_variants(config(), LLAMA, block=32) == ()


def test_where_layers_differ_the_budget_is_checked_once_it_is_known_which_are_kept() -> None:
    windowed = Gemma2Config(**SIZES | {"sliding_window": 16, "query_pre_attn_scalar": 8})
    settings = config(
        space={"per_layer": [FFN], "layers": [4, 6]},
        per_layer={"ffn_shares": [1.0, 0.5]},
        budget={"parameters": 0.45, "context": 32},
    )
    variants = layer_variants(settings, windowed, block=32)
    (member,) = members_of(settings, costs_of(settings, windowed), device="cpu")
    plan = plan_of(settings, variants, member)
    assert plan is not None
    with pytest.raises(SearchError, match="the nearest is L4 H64 A8/2 F48 with"):
        plan.chosen({4: [0, 1, 2, 5], 6: list(range(6))})


def test_what_is_printed_of_a_plan() -> None:
    settings = config(space=LAYERED, per_layer={"depths": 2})
    variants = layer_variants(settings, LLAMA, block=32)
    (member,) = members_of(settings, costs_of(settings, LLAMA), device="cpu")
    plan = plan_of(settings, variants, member)
    assert plan is not None
    attention, ffn, depths = plan.describe()
    assert attention == "per-layer: attention A8/2, A4/1, none"
    assert ffn == "per-layer: ffn       F96, F72, F48, F24, none"
    assert depths == "per-layer: at most 2 of the depths 2, 3, 4, 5, 6"
