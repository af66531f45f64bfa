"""Latencies between measured shapes are predicted, and tables are read as they were written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from common.errors import SearchError
from pruning import AXES, Architecture, ArchitectureGrid, architecture_of, is_legal
from pruning.families import ALL_SHARES, kinds_of
from pruning.families.architecture import DENSE_AXES, Sizes
from search.space import latency_benchmark as benchmark
from search.space import timing
from search.space.latency import TIMES, LatencySetting, LatencyTable, choose_shapes
from search.space.latency_benchmark import check, measure, setting_here
from tests.pruning.models import build_config, smaller_than

SETTING = LatencySetting("cpu", 1, 2, 16, "float32", "a processor")
VARIANTS = ("llama-gqa-tied", "gemma3", "phi3-long", "gpt2", "gpt-neox", "mixtral")


@pytest.fixture(scope="module")
def grid(sizes: dict[str, Any]) -> ArchitectureGrid:
    """Every legal student of some choices."""
    choices = [range(2, 7), range(24, 65, 4), range(2, 9, 2), [2], range(32, 97, 8)]
    every = ArchitectureGrid.product(dict(zip(DENSE_AXES, choices, strict=True)))
    return every.where(is_legal(LlamaConfig(**sizes), every))


def truth(a: Sizes[Any]) -> dict[str, Any]:
    """Times of a device that there could be."""
    attention = a.layers * a.hidden * (a.heads + a.kv_heads)
    return {
        "prefill_ms": 0.4 + 0.2 * a.layers + 2e-4 * attention + 3e-5 * a.layers * a.hidden * a.ffn,
        "decode_ms": 0.2 + 0.3 * a.layers + 1e-3 * a.hidden + 4e-6 * a.layers * a.hidden * a.ffn,
    }


def table_of(shapes: list[Architecture], noise: float = 0.0, seed: int = 0) -> LatencyTable:
    generator = np.random.default_rng(seed)
    times = {
        name: tuple(truth(s)[name] * np.exp(noise * generator.normal()) for s in shapes)
        for name in TIMES
    }
    return LatencyTable(tuple(shapes), times, SETTING)


def test_exact_times_are_predicted_exactly_and_noisy_ones_nearly(grid: ArchitectureGrid) -> None:
    shapes = choose_shapes(grid)
    exact, noisy = table_of(shapes), table_of(shapes, noise=0.03)
    for name in TIMES:
        assert exact.predict(grid)[name] == pytest.approx(truth(grid)[name], rel=1e-4)
        assert exact.errors[name].worst < 1e-3
        off = np.abs(noisy.predict(grid)[name] / truth(grid)[name] - 1)
        assert off.max() < 0.06
        assert 0.005 < noisy.errors[name].median < 0.06
        assert noisy.errors[name].median < noisy.errors[name].worst < 0.2


def test_one_architecture_is_predicted_as_in_an_array(grid: ArchitectureGrid) -> None:
    table = table_of(choose_shapes(grid), noise=0.03)
    one = Architecture.from_dict({axis: getattr(grid, axis)[100] for axis in AXES})
    for name in TIMES:
        assert float(table.predict(one)[name]) == pytest.approx(table.predict(grid)[name][100])


def test_a_time_that_does_not_follow_the_shape_shows_in_the_error(grid: ArchitectureGrid) -> None:
    shapes = choose_shapes(grid)
    table = table_of(shapes)
    spoilt = list(table.times["decode_ms"])
    spoilt[5] *= 3
    errors = replace(table, times={**table.times, "decode_ms": tuple(spoilt)}).errors
    assert errors["decode_ms"].worst > 0.5
    assert errors["prefill_ms"].worst < 1e-3


def test_predictions_never_fall_with_the_size(grid: ArchitectureGrid) -> None:
    """Whatever the noise: a negative weight would make a larger student the faster one."""
    table = table_of(choose_shapes(grid, 8), noise=0.5)
    for axis in ("layers", "hidden", "heads", "ffn"):
        larger = replace(grid, **{axis: getattr(grid, axis) + 8})
        for name in TIMES:
            assert (table.predict(larger)[name] >= table.predict(grid)[name]).all()


def test_experts_in_use_and_experts_at_rest_count(grid: ArchitectureGrid) -> None:
    shapes = [
        Architecture(layers, hidden, 4, 2, 0, experts, size)
        for layers in (2, 4, 6)
        for hidden in (32, 64)
        for experts in (2, 4, 8)
        for size in (16, 64)
    ]
    decode = tuple(1 + 1e-4 * s.layers * s.hidden * s.expert_ffn * s.experts for s in shapes)
    table = LatencyTable(tuple(shapes), {"decode_ms": decode})
    one = Architecture(5, 48, 4, 2, 0, 6, 32)
    assert table.predict(one)["decode_ms"] == pytest.approx(1 + 1e-4 * 5 * 48 * 32 * 6, rel=1e-4)


# Which shapes


def test_shapes_are_the_corners_and_then_a_spread(grid: ArchitectureGrid) -> None:
    shapes = choose_shapes(grid, 24)
    assert len(set(shapes)) == 24
    assert shapes[0] == Architecture(6, 64, 8, 2, 96)
    ends = [{2, 6}, {24, 64}, {2, 8}, {2}, {32, 96}]
    corners = [
        s for s in shapes if all(getattr(s, a) in e for a, e in zip(AXES, ends, strict=False))
    ]
    assert len(corners) == 16
    assert {s.layers for s in shapes} > {2, 6}
    assert choose_shapes(grid, 24) == shapes
    assert choose_shapes(grid, 8) == shapes[:8]


def test_few_architectures_are_all_measured_and_none_twice() -> None:
    given = ArchitectureGrid.of(
        [
            Architecture(layers, 32, 4, 2, layers * 8, contiguous=span)
            for layers, span in ((2, 0), (4, 0), (4, 1), (6, 0))
        ]
    )
    assert sorted(choose_shapes(given)) == [
        Architecture(layers, 32, 4, 2, layers * 8) for layers in (2, 4, 6)
    ]


# Files


def test_a_table_is_read_as_it_was_saved(grid: ArchitectureGrid, tmp_path: Path) -> None:
    table = table_of(choose_shapes(grid), noise=0.03)
    path = tmp_path / "latency.csv"
    table.save(path)
    again = LatencyTable.read(path)
    assert again.shapes == table.shapes
    assert again.setting == SETTING
    for name in TIMES:
        assert again.times[name] == pytest.approx(table.times[name], rel=1e-5)
    assert json.loads(path.read_text().splitlines()[0][2:])["name"] == "a processor"


def test_a_table_made_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [f"{n}, 32, 4, 2, 48, 0, 0, {1.5 * n}" for n in range(1, 7)]
    header = "layers, hidden, heads, kv_heads, ffn, experts, expert_ffn, decode_ms"
    path.write_text("\ufeff# from our own engine\n" + "\n".join([header, *rows, ""]))
    table = LatencyTable.read(path)
    assert table.setting is None
    assert table.shapes[2] == Architecture(3, 32, 4, 2, 48)
    assert table.times == {"decode_ms": tuple(1.5 * n for n in range(1, 7))}


HEADER = "layers,hidden,heads,kv_heads,ffn,prefill_ms,decode_ms"
ROW = "4,32,4,2,48,2.5,1.5"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no column layers"),
        ([HEADER.replace("kv_heads,", "")], "has no column kv_heads; a row needs layers, hidden"),
        (["layers,hidden,heads,kv_heads,ffn,ms"], "has no column prefill_ms or decode_ms"),
        ([HEADER, *[ROW] * 5], "has 5 rows; it needs at least 6"),
        ([HEADER, *[ROW] * 6, "4,32,4,2,48,fast,1.5"], "'fast' for prefill_ms, which is no number"),
        ([HEADER, *[ROW] * 6, "4,32,4,2,48,2.5"], "None for decode_ms, which is no number"),
        ([HEADER, *[ROW] * 6, "4,32,4,2,48,0,1.5"], "has 0 for prefill_ms; it must be above 0"),
        ([HEADER, *[ROW] * 6, "4,32,4,2,48,nan,1.5"], "nan for prefill_ms; it must be above 0"),
        ([HEADER, *[ROW] * 6, "0,32,4,2,48,2,1.5"], "has 0 for layers; it must be a whole number"),
        ([HEADER, *[ROW] * 6, "4,3.5,4,2,48,2,1.5"], "has 3.5 for hidden; it must be a whole"),
        (['# {"gpu": "H200"}', HEADER, *[ROW] * 6], "the first line of the latency table"),
    ],
)
def test_what_is_no_table_is_refused_in_one_sentence(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(SearchError, match=said):
        LatencyTable.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="cannot be read"):
        LatencyTable.read(tmp_path / "none.csv")


def test_a_table_must_be_of_this_teacher_and_this_setting(
    sizes: dict[str, Any], grid: ArchitectureGrid
) -> None:
    config, table = LlamaConfig(**sizes), table_of(choose_shapes(grid))
    table.require_fits(config, TIMES, batch=2, context=16, dtype="float32")
    with pytest.raises(SearchError, match="measured with context 16, and the budget is for 64"):
        table.require_fits(config, TIMES, batch=2, context=64, dtype="float32")
    replace(table, setting=None).require_fits(config, TIMES, batch=2, context=64, dtype="float32")
    only = replace(table, times={"prefill_ms": table.times["prefill_ms"]})
    with pytest.raises(SearchError, match="has no column decode_ms"):
        only.require_fits(config, TIMES, batch=2, context=16, dtype="float32")
    smaller = LlamaConfig(**{**sizes, "num_hidden_layers": 3})
    with pytest.raises(SearchError, match="has L6 H64 A8/2 F96, which cannot be cut out of the"):
        table.require_fits(smaller, TIMES, batch=2, context=16, dtype="float32")


# Measuring


@pytest.mark.parametrize("variant", VARIANTS)
def test_measuring_times_every_shape_and_leaves_nothing_changed(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PIECE", 0.0)
    monkeypatch.setattr(benchmark, "FEWEST_ROUNDS", 1)
    config = build_config(variant)
    shapes = [architecture_of(config), smaller_than(config)]
    threads = torch.get_num_threads()
    # the whole of the teacher's positions: there is none left for the token after them
    setting = setting_here(
        "cpu", threads + 1, batch=2, context=config.max_position_embeddings, dtype="float32"
    )
    table = measure(config, shapes, setting=setting, seconds=0)
    assert table.shapes == tuple(shapes)
    assert table.setting == setting
    assert set(table.times) == set(TIMES)
    assert all(len(times) == 2 and min(times) > 0 for times in table.times.values())
    assert torch.get_num_threads() == threads


def test_timed_students_are_those_that_would_be_cut() -> None:
    config = build_config("gemma3")
    shape = replace(architecture_of(config), layers=2, heads=6, kv_heads=2)
    wanted = timing.Timed(shape, benchmark.spread_layers(config, 2))
    weights = timing.shared_weights(config, [wanted], setting=SETTING)
    model = timing.student(config, wanted, weights=weights)
    assert architecture_of(model.config) == shape
    assert model.config.layer_types == ["sliding_attention", "full_attention"]
    ends = [weights.data_ptr(), weights.data_ptr() + weights.nbytes]
    places = {p.data_ptr() for p in model.parameters()}
    assert len(places) == len(list(model.parameters()))
    assert all(
        ends[0] <= p.data_ptr() and p.data_ptr() + p.nbytes <= ends[1] for p in model.parameters()
    )
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_timed_students_of_a_hybrid_keep_of_each_kind_its_share() -> None:
    config = build_config("nemotron-h", hybrid_override_pattern="M-M-M*-M-M")
    kinds = kinds_of(config)
    for depth in range(1, len(kinds) + 1):
        timed = [kinds[layer] for layer in benchmark.spread_layers(config, depth)]
        assert len(timed) == depth
        assert {k: timed.count(k) for k in set(kinds)} == {
            kind: int(numbers[depth]) for kind, numbers in ALL_SHARES.counts(kinds).items()
        }


def test_a_check_times_one_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MOST_ROUNDS", 3)
    config = build_config("qwen3")
    times = check(config, smaller_than(config), setting=SETTING)
    assert set(times) == set(TIMES)
    assert all(value > 0 for value in times.values())


def test_types_that_do_not_run_here_need_a_table() -> None:
    with pytest.raises(SearchError, match="cannot be measured in int8; .*--budget.latency_table"):
        setting_here("cpu", 1, batch=1, context=16, dtype="int8")


def test_a_fingerprint_has_all_that_times_depend_on() -> None:
    parts = SETTING.fingerprint_parts()
    for changed in (
        {"device": "cuda"},
        {"threads": 2},
        {"batch": 1},
        {"context": 8},
        {"dtype": "bfloat16"},
        {"name": "another"},
    ):
        assert replace(SETTING, **changed).fingerprint_parts() != parts
    assert json.loads(json.dumps(parts)) == parts
