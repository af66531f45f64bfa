"""What users write is the limit they mean, and what a budget lets through meets it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, MixtralConfig

from common.errors import SearchError
from experiments.command import parse
from pruning import (
    Architecture,
    ArchitectureGrid,
    Workload,
    active_parameters,
    architecture_of,
    forward_flops,
    memory_bytes,
    parameter_count,
)
from pruning.families.architecture import DENSE_AXES
from search.config.budget import BudgetConfig
from search.config.units import COSTS, COUNTED
from search.space.budget import Budget, nearest, shown_costs
from search.space.costs import CostModel
from search.space.latency import LatencyTable

BLOCK = 32


@dataclass(frozen=True)
class Settings:
    """A command that takes a budget."""

    budget: BudgetConfig = field(default_factory=BudgetConfig)


@pytest.fixture(scope="module")
def config(sizes: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(**sizes)


@pytest.fixture(scope="module")
def every() -> ArchitectureGrid:
    """All of some choices."""
    sizes = ([2, 4, 6], [32, 48, 64], [4, 8], [2], [48, 72, 96])
    return ArchitectureGrid.product(dict(zip(DENSE_AXES, sizes, strict=True)))


@pytest.fixture(scope="module")
def table(config: LlamaConfig) -> LatencyTable:
    """Times that follow the depth and the widths exactly."""
    shapes = [
        Architecture(layers, hidden, heads, 2, ffn)
        for layers in (2, 6)
        for hidden in (32, 64)
        for heads in (4, 8)
        for ffn in (48, 96)
    ]
    decode = tuple(1 + 0.5 * s.layers for s in shapes)
    prefill = tuple(2 + 0.001 * s.layers * s.hidden * s.ffn for s in shapes)
    return LatencyTable(tuple(shapes), {"prefill_ms": prefill, "decode_ms": decode})


def budget_of(config: Any, table: LatencyTable | None = None, **given: Any) -> Budget:
    limits = BudgetConfig(**given)
    return Budget.of(limits, CostModel.of(config, limits, block=BLOCK, latency=table))


# What the command line and YAML give


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0.5", 0.5),
        ("4e9", 4e9),
        ("500M", "500M"),
        ("[0.4, 0.6]", [0.4, 0.6]),
        ("[1000, 2K]", [1000.0, "2K"]),
        ("40%", "40%"),
    ],
)
def test_a_limit_is_a_number_a_text_or_a_band(text: str, limit: Any) -> None:
    settings = parse(Settings, ["--budget.parameters", text])
    assert settings.budget == BudgetConfig(parameters=limit)


def test_every_option_comes_from_the_command_line_and_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(
        "budget:\n  parameters: 4B\n  memory: [1GB, 8GB]\n  tolerance: null\n  context: 4096\n"
    )
    line = ["--config", str(path), "--budget.decode_ms", "20ms", "--budget.batch", "4"]
    line += ["--budget.dtype", "int8", "--budget.latency_table", str(path)]
    assert parse(Settings, line).budget == BudgetConfig(
        parameters="4B",
        memory=["1GB", "8GB"],
        tolerance=None,
        context=4096,
        decode_ms="20ms",
        batch=4,
        dtype="int8",
        latency_table=path,
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parameters": 0.0}, "--budget.parameters is 0; it must be a number above 0"),
        ({"memory": "-3GB"}, "--budget.memory is '-3GB'; it must be a number above 0"),
        ({"parameters": float("nan")}, "--budget.parameters is nan; it must be"),
        ({"memory": "8XB"}, "--budget.memory is '8XB'; it must be a number above 0, such as 8GB"),
        ({"decode_ms": "50%"}, "--budget.decode_ms is '50%'"),
        ({"flops": "much"}, "--budget.flops is 'much'"),
        ({"parameters": 1.5}, "--budget.parameters is 1.5, above 1 times the teacher"),
        ({"memory": "150%"}, "--budget.memory is '150%', above 1 times the teacher"),
        ({"active": [0.1]}, r"--budget.active is \[0.1\]; a band has two ends"),
        (
            {"decode_ms": 5, "decode_tokens_per_second": 30},
            "--budget.decode_tokens_per_second and --budget.decode_ms are both given",
        ),
        ({"tolerance": 1.0}, "--budget.tolerance is 1.0"),
        ({"batch": 0}, "--budget.batch is 0"),
        ({"context": 0}, "--budget.context is 0"),
        ({"dtype": "int4"}, "--budget.dtype is 'int4'; it must be one of float32"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SearchError, match=said):
        BudgetConfig(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parameters": 1e12}, r"--budget.parameters is 1e\+12, above the teacher's own 1[\d,]+ p"),
        ({"memory": "8GB"}, r"--budget.memory is 8GB, above the teacher's own [\d.]+ kB memory"),
        ({"parameters": [0.6, 0.4]}, r"--budget.parameters is \[0.6, 0.4\]; the first end"),
        ({"decode_ms": 50.0}, "--budget.decode_ms is 50, above the teacher's own 4 ms per deco"),
        ({"decode_tokens_per_second": 2.0}, "is 2, which the teacher reaches with its 4 ms"),
        ({"context": 1 << 20}, "--budget.context is 1048576; the teacher has positions for"),
    ],
)
def test_what_no_student_can_need_is_refused(
    config: LlamaConfig, table: LatencyTable, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SearchError, match=said):
        budget_of(config, table, **given)


# What the limits mean


@pytest.mark.parametrize(
    ("cost", "text", "value"),
    [
        ("parameters", "0.09M", 9e4),
        ("parameters", "90_000", 9e4),
        ("parameters", "1e5", 1e5),
        ("active", "90k", 9e4),
        ("memory", "100kB", 1e5),
        ("memory", "100KiB", 102400),
        ("memory", "0.1 MB", 1e5),
        ("flops", "0.2MFLOP", 2e5),
        ("flops", "0.2MFLOPs", 2e5),
        ("flops", "200k", 2e5),
        ("decode_ms", "0.003s", 3),
    ],
)
def test_suffixes(
    config: LlamaConfig, table: LatencyTable, cost: str, text: str, value: float
) -> None:
    assert budget_of(config, table, **{cost: text}).most(cost) == pytest.approx(value)


@pytest.mark.parametrize("cost", COUNTED)
def test_a_value_up_to_one_is_a_share_of_the_teachers(config: LlamaConfig, cost: str) -> None:
    teacher = CostModel.of(config, BudgetConfig(), block=BLOCK).of_teacher([cost])[cost]
    assert budget_of(config, None, **{cost: 0.25}).most(cost) == 0.25 * teacher
    assert budget_of(config, None, **{cost: "25%"}).most(cost) == 0.25 * teacher
    assert budget_of(config, None, **{cost: 1.0}).most(cost) == teacher


def test_without_any_limit_half_of_the_parameters(config: LlamaConfig) -> None:
    teacher = parameter_count(config, architecture_of(config))
    assert budget_of(config, tolerance=0.1) == budget_of(config, parameters=0.5, tolerance=0.1)
    assert budget_of(config).most("parameters") == teacher / 2
    assert BudgetConfig().given == ()


def test_throughputs_are_limits_of_time(config: LlamaConfig, table: LatencyTable) -> None:
    given: dict[str, Any] = {
        "decode_tokens_per_second": 2000,
        "prefill_tokens_per_second": [8000.0, 32000.0],
    }
    budget = budget_of(config, table, batch=4, context=16, **given)
    assert budget.most("decode_ms") == pytest.approx(4 / 2000 * 1000)
    prefill = next(bounds for bounds in budget.limits if bounds.cost == "prefill_ms")
    assert [prefill.least, prefill.most] == pytest.approx([2, 8])
    assert BudgetConfig(**given).given == ("prefill_ms", "decode_ms")


def test_one_limit_and_its_tolerance_are_a_band(
    config: LlamaConfig, every: ArchitectureGrid
) -> None:
    teacher = parameter_count(config, architecture_of(config))
    budget = budget_of(config, parameters=0.5, tolerance=0.2)
    counts = parameter_count(config, every)
    inside = (counts <= 0.5 * teacher) & (counts >= 0.4 * teacher)
    assert 0 < inside.sum() < len(inside)
    assert (budget.holds({"parameters": counts}) == inside).all()
    low, high = int(np.ceil(0.8 * 0.5 * teacher)), teacher // 2
    assert str(budget) == f"{low:,} to {high:,} parameters"


def test_of_several_limits_one_is_used_up(config: LlamaConfig, every: ArchitectureGrid) -> None:
    model = CostModel.of(config, BudgetConfig(), block=BLOCK)
    costs = model.costs(every, COUNTED)
    teacher = model.of_teacher(COUNTED)
    budget = budget_of(config, parameters=0.6, flops=0.5, tolerance=0.2)
    used = [costs["parameters"] / (0.6 * teacher["parameters"])]
    used += [costs["flops"] / (0.5 * teacher["flops"])]
    most = np.maximum(*used)
    assert ((most <= 1) & (used[0] < 0.8)).any()  # flops alone are near their limit somewhere
    assert (budget.holds(costs) == ((most <= 1) & (most >= 0.8))).all()
    assert budget.costs == ("parameters", "flops")
    assert str(budget).endswith("bfloat16), one of them used to 80% or more")


def test_a_band_stands_in_place_of_the_tolerance(
    config: LlamaConfig, every: ArchitectureGrid
) -> None:
    costs = CostModel.of(config, BudgetConfig(), block=BLOCK).costs(every, COUNTED)
    low, high = np.quantile(costs["parameters"], [0.2, 0.7])
    memory = float(np.quantile(costs["memory"], 0.6))
    budget = budget_of(config, parameters=[low, high], memory=memory)
    parameters = costs["parameters"]
    inside = (parameters >= low) & (parameters <= high) & (costs["memory"] <= memory)
    assert 0 < inside.sum() < len(inside)
    assert (budget.holds(costs) == inside).all()
    assert str(budget).startswith(f"{int(np.ceil(low)):,} to {int(high):,} parameters, at most ")
    assert str(budget).endswith(" kB memory (batch 1, context 32, bfloat16)")


def test_without_a_tolerance_small_students_are_inside(
    config: LlamaConfig, every: ArchitectureGrid
) -> None:
    limits = BudgetConfig(parameters=0.7)
    model = CostModel.of(config, limits, block=BLOCK)
    costs = model.costs(every, ["parameters"])
    open_below = Budget.of(limits, model, banded=False)
    below = costs["parameters"] <= 0.7 * model.of_teacher(["parameters"])["parameters"]
    assert (open_below.holds(costs) == below).all()
    assert open_below == budget_of(config, parameters=0.7, tolerance=None)
    assert str(open_below).startswith("at most ")


# What nothing meets


@pytest.mark.parametrize(
    "given",
    [
        {"parameters": 0.5, "memory": 0.01},
        {"parameters": [0.5, 0.50001], "memory": [0.9, 0.90001]},
        {"parameters": 0.011, "tolerance": 0.0},
    ],
)
def test_the_nearest_violates_the_budget_least(
    config: LlamaConfig, every: ArchitectureGrid, given: dict[str, Any]
) -> None:
    budget = budget_of(config, **given)
    costs = CostModel.of(config, BudgetConfig(), block=BLOCK).costs(every, COUNTED)
    legal = np.arange(len(every.layers)) % 3 > 0
    assert not budget.holds(costs).any()
    found = nearest(costs, legal, budget=budget)
    assert legal[found]

    def off(index: Any) -> float:
        ratios = []
        for bounds in budget.limits:
            cost = costs[bounds.cost][index]
            ratios += [cost / bounds.most - 1]
            ratios += [1 - cost / bounds.least] if bounds.least else []
        return max(ratios)

    assert off(found) == min(off(index) for index in np.flatnonzero(legal))


def test_the_nearest_to_a_tolerance_is_the_one_just_below_it(
    config: LlamaConfig, every: ArchitectureGrid
) -> None:
    counts = parameter_count(config, every)
    gap = np.sort(counts)[-2:]
    budget = budget_of(config, parameters=float(gap[1] - 1), tolerance=1e-6)
    legal = counts < gap[1]
    found = nearest({"parameters": counts}, legal, budget=budget)
    assert counts[found] == gap[0]
    said = shown_costs({"parameters": float(gap[0])}, budget)
    assert said == f"{gap[0]:,} parameters (below 100% of the limit)"


def test_costs_are_shown_in_the_units_of_the_limits(
    config: LlamaConfig, table: LatencyTable
) -> None:
    budget = budget_of(config, table, parameters=9e4, memory=["80kB", "0.1MB"], decode_ms=3)
    said = shown_costs({"parameters": 91000.0, "memory": 5e4, "decode_ms": 2.5}, budget)
    assert said == (
        "91,000 parameters (above 90,000), 50 kB memory (below 80 kB), 2.5 ms per decoding step"
    )
    half = budget_of(config, table, parameters=90000.5)
    above = shown_costs({"parameters": 90001.0}, half)
    assert above == "90,001 parameters (above 90,000)" and "90,000 parameters" in str(half)
    inside = {"parameters": 9e4, "memory": 9e4, "decode_ms": 3.0}
    assert "above" not in shown_costs(inside, budget)


# What an architecture costs


def test_costs_are_those_of_the_formulas(
    config: LlamaConfig, every: ArchitectureGrid, table: LatencyTable
) -> None:
    model = CostModel.of(
        config, BudgetConfig(batch=3, context=16, dtype="int8"), block=BLOCK, latency=table
    )
    costs = model.costs(every, iter(COSTS))
    assert set(costs) == set(COSTS)
    assert (costs["parameters"] == parameter_count(config, every)).all()
    assert (costs["memory"] == memory_bytes(config, every, Workload(3, 16, 1))).all()
    assert (costs["flops"] == forward_flops(config, every, 16)).all()
    assert costs["decode_ms"] == pytest.approx(1 + 0.5 * every.layers)
    for index in (0, 7, -1):
        single = model.costs(every[index], COSTS)
        assert single == pytest.approx({name: value[index] for name, value in costs.items()})


def test_the_context_is_the_block_or_the_teachers_positions(config: LlamaConfig) -> None:
    assert CostModel.of(config, BudgetConfig(), block=BLOCK).context == BLOCK
    assert CostModel.of(config, BudgetConfig()).context == config.max_position_embeddings
    assert CostModel.of(config, BudgetConfig(context=7), block=BLOCK).context == 7


def test_active_parameters_limit_a_mixture_of_experts(sizes: dict[str, Any]) -> None:
    config = MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
    budget = budget_of(config, active=0.8, tolerance=None)
    whole = architecture_of(config)
    costs = CostModel.of(config, BudgetConfig(), block=BLOCK).costs(whole, ["active", "parameters"])
    assert costs["active"] == active_parameters(config, whole) < costs["parameters"]
    assert not budget.holds(costs)
    assert budget.holds({"active": np.array(0.8 * costs["active"])})
