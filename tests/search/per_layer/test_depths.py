"""The programme of a depth: its costs are those of the student, its refusals name the nearest."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import Gemma2Config, LlamaConfig, PretrainedConfig, Qwen3MoeConfig

from common.errors import SearchError
from pruning import ATTENTION, FFN, Block, architecture_of
from search.config.budget import BudgetConfig
from search.config.per_layer import PerLayerConfig
from search.per_layer.depths import Depth, chosen_depths
from search.space.block_costs import BlockCosts
from search.space.block_latency import BlockLatencyTable
from search.space.budget import Budget
from search.space.costs import CostModel
from search.space.latency import LatencySetting, LatencyTable
from search.space.variants import variants_of
from tests.search.conftest import SIZES

COUNTED = ("parameters", "non_embedding", "active", "memory", "flops")
LLAMA = LlamaConfig(**SIZES)
WINDOWED = Gemma2Config(**SIZES | {"sliding_window": 16, "query_pre_attn_scalar": 8})
MIXTURE = Qwen3MoeConfig(
    **SIZES
    | {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "mlp_only_layers": [],
    }
)


def depth_of(config: PretrainedConfig, kept: list[int], **limits: Any) -> Depth:
    given = BudgetConfig(**limits)
    costs = CostModel.of(config, given, block=32)
    variants = variants_of(config, PerLayerConfig(), sub_blocks=[ATTENTION, FFN], block=32)
    budget = Budget.of(given, costs)
    return Depth.of(kept, variants, costs=BlockCosts(costs, budget))


@pytest.mark.parametrize("config", [LLAMA, WINDOWED, MIXTURE], ids=lambda c: c.model_type)
def test_the_costs_of_a_choice_are_those_of_the_student(config: PretrainedConfig) -> None:
    kept = [0, 1, 3, 5]
    depth = depth_of(config, kept, **dict.fromkeys(COUNTED, 0.9), batch=3)
    costs = CostModel.of(config, BudgetConfig(batch=3), block=32)
    generator = np.random.default_rng(0)
    for _ in range(10):
        choice = tuple(int(generator.integers(len(own))) for own in depth.blocks)
        shape = depth.architecture(choice)
        assert depth.programme.costs_of(choice) == pytest.approx(
            costs.costs(shape, COUNTED, kept=kept), rel=1e-12
        )


def test_whole_or_left_out() -> None:
    depth = depth_of(LLAMA, [0, 1])
    only = depth.programme.only_full_or_left_out()
    sizes = {
        (block.heads, block.ffn)
        for own, offered in zip(depth.blocks, only.offered, strict=True)
        for block, is_offered in zip(own, offered, strict=False)
        if is_offered
    }
    assert sizes == {(8, 96), (0, 96), (8, 0)}


def test_the_deepest_and_others_spread_are_chosen_of_those_that_fit() -> None:
    every = [depth_of(LLAMA, list(range(count)), parameters=0.5) for count in range(1, 7)]
    fitting = [len(depth.kept) for depth in every if depth.fits()]
    assert fitting == [3, 4, 5, 6]
    assert [len(d.kept) for d in every if d.may_fit] == fitting
    assert [len(depth.kept) for depth in chosen_depths(every, 2)] == [6, 4]
    assert [len(depth.kept) for depth in chosen_depths(every, 100)] == [6, 5, 4, 3]


def test_a_budget_that_none_meets_names_the_nearest_of_all_depths() -> None:
    every = [depth_of(LLAMA, list(range(count)), parameters=10_000) for count in (4, 6)]
    with pytest.raises(SearchError) as refusal:
        chosen_depths(every, 3)
    said = str(refusal.value)
    assert "no combination of blocks of --space.per_layer meets the budget of" in said
    assert "the nearest is L4 H64 A" in said and "parameters (above 10,000)" in said
    assert "\n" not in said


def test_students_keep_how_layers_were_chosen() -> None:
    depth = replace(depth_of(LLAMA, [0, 1, 2]), contiguous=1)
    assert str(depth.architecture((0, 1, 1))).startswith("L3-span H64 A")


def test_times_are_sums_of_measured_sub_blocks() -> None:
    given = BudgetConfig(decode_ms=3.0, parameters=0.9)
    variants = variants_of(LLAMA, PerLayerConfig(), sub_blocks=[ATTENTION, FFN], block=32)
    parts = {part for layer in variants for part in (*layer.attention, *layer.ffn)}
    table = BlockLatencyTable(
        setting=LatencySetting("cpu", 1, 1, 32, "bfloat16"),
        windows=(False,) * 7,
        outside={"decode_ms": 1.0},
        layer={"decode_ms": 0.125},
        sub_blocks={
            p: {"decode_ms": p.heads / 16 + p.ffn / 256} for p in parts if p != Block(0, 0, 0)
        },
        noise={},
        students=(),
    )
    whole = architecture_of(LLAMA)
    uniform = LatencyTable((whole,), {"decode_ms": (9.0,), "prefill_ms": (20.0,)})
    costs = CostModel.of(LLAMA, given, block=32, latency=uniform, block_latency=table)
    budget = Budget.of(given, costs)
    depth = Depth.of([0, 2, 3], variants, costs=BlockCosts(costs, budget))
    for choice in ((0, 1, 2), (5, 5, 5), (7, 0, 9)):
        shape, own = depth.architecture(choice), depth.programme.costs_of(choice)
        blocks = [shape.block(index) for index in range(3)]
        assert own["decode_ms"] == 1 + sum(0.125 + b.heads / 16 + b.ffn / 256 for b in blocks)
        if shape.per_layer:
            assert own["decode_ms"] == costs.times(shape, kept=[0, 2, 3])["decode_ms"]
    assert set(costs.times(depth.architecture((0, 1, 2)))) == {"decode_ms"}
