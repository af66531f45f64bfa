"""Times of sub-blocks come out of students by differences, and add up to whole students."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import SearchError, SearchStopped
from pruning import ATTENTION, FFN, Architecture, Block, architecture_of
from search.space import block_latency_benchmark as benchmark
from search.space import timing
from search.space.block_latency import BlockLatencyTable, windowed_layers
from search.space.block_latency_benchmark import measure_blocks
from search.space.latency import LatencySetting
from search.space.timing import Timed
from tests.pruning.models import build_config

SETTING = LatencySetting("cpu", 1, 2, 16, "float32", "a processor")
FULL = Block(9, 3, 40)
VARIANTS = [
    {FULL, Block(3, 1, 40), Block(9, 3, 20), Block(0, 0, 40), Block(9, 3, 0), Block(0, 0, 20)}
] * 3


def layer_seconds(block: Block, windowed: bool) -> dict[str, float]:
    """Of a device that there could be, where a window saves half of the attention."""
    attention = block.heads * (0.5 if windowed or block.window else 1.0)
    return {
        "prefill_ms": 1e-3 * (0.2 + 0.5 * attention + 0.01 * block.ffn),
        "decode_ms": 1e-3 * (0.1 + 0.1 * attention + 0.05 * block.kv_heads + 0.004 * block.ffn),
    }


class Device:
    """Fake device: seconds of a student, with noise and a drift of the whole machine."""

    def __init__(self, windows: tuple[bool, ...], noise: float = 0.0, drift: float = 0.0):
        self.windows, self.noise, self.drift = windows, noise, drift
        self.random, self.turns = np.random.default_rng(0), 0

    def __call__(self, student: Timed, *_: object) -> dict[str, float]:
        total = {"prefill_ms": 2e-3, "decode_ms": 1e-3}
        for index, layer in enumerate(student.kept):
            found = layer_seconds(student.architecture.block(index), self.windows[layer])
            total = {name: total[name] + found[name] for name in total}
        self.turns += 1
        slower = 1 + self.drift * self.turns
        return {
            name: seconds * slower + self.noise * self.random.normal()
            for name, seconds in total.items()
        }


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Device], Device]:
    """Times come from this device."""

    def install(device: Device) -> Device:
        monkeypatch.setattr(benchmark, "students", lambda config, wanted, setting: list(wanted))
        monkeypatch.setattr(benchmark, "turn", device)
        return device

    return install


def test_times_of_sub_blocks_are_those_of_the_device_and_add_up(
    on: Callable[[Device], Device],
) -> None:
    config = build_config("llama-gqa-tied")
    on(Device((False,) * 4))
    table = measure_blocks(config, VARIANTS, setting=SETTING, seconds=0)
    assert table.outside == pytest.approx({"prefill_ms": 2.0, "decode_ms": 1.0})
    assert table.layer == pytest.approx({"prefill_ms": 0.2, "decode_ms": 0.1})
    assert table.of(ATTENTION, Block(3, 1, 20), 0) == pytest.approx(
        {"prefill_ms": 1.5, "decode_ms": 0.35}
    )
    assert table.of(FFN, FULL, 2) == pytest.approx({"prefill_ms": 0.4, "decode_ms": 0.16})
    assert table.of(FFN, Block(9, 3, 0), 1) == {"prefill_ms": 0.0, "decode_ms": 0.0}
    shape = Architecture.of_blocks(54, [FULL, Block(0, 0, 20), Block(9, 3, 0)])
    assert table.predict(shape)["decode_ms"] == pytest.approx(
        1000 * Device((False,) * 3)(Timed(shape, (0, 1, 2)))["decode_ms"]
    )
    assert len(table.students) == benchmark.WHOLE_STUDENTS
    assert all(error.worst < 1e-9 for error in table.errors.values())


def test_a_drift_of_the_machine_favours_no_sub_block(on: Callable[[Device], Device]) -> None:
    on(Device((False,) * 4, drift=1e-3))
    table = measure_blocks(build_config("llama-gqa-tied"), VARIANTS, setting=SETTING, seconds=0)
    middle = 1 + 1e-3 * 18 * (1 + benchmark.FEWEST_ROUNDS / 2)  # 18 students, a first turn of each
    for block in (Block(3, 1, 0), Block(9, 3, 0)):
        found = table.of(ATTENTION, block, 0)["prefill_ms"]
        assert found == pytest.approx(0.5 * block.heads * middle, rel=0.06)
    assert all(error.worst < 0.05 for error in table.errors.values())


def test_what_is_noisy_is_measured_again_and_nothing_else(
    on: Callable[[Device], Device], caplog: pytest.LogCaptureFixture
) -> None:
    config = build_config("llama-gqa-tied")
    device = on(Device((False,) * 4))
    measure_blocks(config, VARIANTS, setting=SETTING, seconds=0)
    calm = device.turns
    device = on(Device((False,) * 4, noise=2e-4))
    with caplog.at_level("INFO"):
        table = measure_blocks(config, VARIANTS, setting=SETTING, seconds=0)
    assert device.turns > calm
    assert "5 of 5 sub-blocks are measured again, since they are noisy" in caplog.text
    assert max(times["decode_ms"] for times in table.noise.values()) > 0
    assert all(ms > 0 for times in table.sub_blocks.values() for ms in times.values())


def test_a_time_below_zero_is_refused_and_not_clamped(on: Callable[[Device], Device]) -> None:
    on(Device((False,) * 4, noise=0.5))
    with pytest.raises(SearchStopped, match=r"was measured as -.* ms in 20 rounds; .* idle"):
        measure_blocks(build_config("llama-gqa-tied"), VARIANTS, setting=SETTING, seconds=0)


def test_windowed_attention_has_a_time_of_its_own(on: Callable[[Device], Device]) -> None:
    """Whether the teacher's layer has the window or the student took it."""
    config = build_config("qwen2-windows")  # layers 0 and 2 have a window of 6 tokens
    windows = windowed_layers(config, 16)
    assert windows == (True, False, True, True)
    assert windowed_layers(config, 6) == (False,) * 4
    on(Device(windows))
    variants = [{FULL}, {FULL, Block(9, 3, 40, window=1)}, {FULL}]
    table = measure_blocks(config, variants, setting=SETTING, seconds=0)
    assert table.of(ATTENTION, FULL, 0)["prefill_ms"] == pytest.approx(2.25)
    assert table.of(ATTENTION, FULL, 1)["prefill_ms"] == pytest.approx(4.5)
    assert table.of(ATTENTION, Block(9, 3, 40, window=1), 1) == table.of(ATTENTION, FULL, 0)
    teacher = architecture_of(config)
    assert table.predict(teacher)["prefill_ms"] == pytest.approx(2 + 3 * 0.6 + 2 * 2.25 + 4.5)
    shallow = replace(teacher, layers=2)  # which layers go is not known: the slower ones stay
    assert table.predict(shallow)["prefill_ms"] == pytest.approx(2 + 2 * 0.6 + 2 * 4.5)
    assert table.predict(shallow, kept=[0, 2])["prefill_ms"] == pytest.approx(2 + 2 * 0.6 + 4.5)


def test_a_sub_block_that_was_not_measured_is_named(on: Callable[[Device], Device]) -> None:
    on(Device((False,) * 4))
    table = measure_blocks(build_config("llama-gqa-tied"), VARIANTS, setting=SETTING, seconds=0)
    with pytest.raises(SearchError, match="latency of ffn A- F24 was not measured"):
        table.of(FFN, Block(9, 3, 24), 0)
    with pytest.raises(SearchError, match="given for 2 layers; the teacher has 3"):
        measure_blocks(build_config("llama-gqa-tied"), VARIANTS[:2], setting=SETTING)


def test_a_table_is_read_as_it_was_saved(on: Callable[[Device], Device], tmp_path: Path) -> None:
    on(Device((False,) * 4, noise=1e-6))
    table = measure_blocks(build_config("llama-gqa-tied"), VARIANTS, setting=SETTING, seconds=0)
    path = tmp_path / "latency.json"
    table.save(path)
    assert BlockLatencyTable.read(path) == table
    values = json.loads(path.read_text())
    del values["sub_blocks"][0]["heads"]
    path.write_text(json.dumps(values))
    with pytest.raises(SearchError, match="is no table of sub-block latencies .*'heads'"):
        BlockLatencyTable.read(path)


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "qwen2-windows", "mixtral"])
def test_students_that_are_timed_have_the_sub_blocks_and_run(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sub-blocks left out of the first layers, windows taken, and no prefill asked for."""
    monkeypatch.setattr(timing, "PIECE", 0.0)
    config = build_config(variant)
    full = architecture_of(config).block(0)
    layer = {full, replace(full, heads=0, kv_heads=0), Block(full.heads, full.kv_heads, 0)}
    windowed = replace(full, window=1) if variant == "qwen2-windows" else full
    bench = benchmark._Bench.of(config, [layer, layer | {windowed}, layer], setting=SETTING)
    assert len(bench.pairs) == (4 if variant == "qwen2-windows" else 3)
    with timing.timing(SETTING):
        models = timing.students(config, bench.wanted, setting=SETTING)
        tokens = timing.prompts(config, SETTING)
        for model, wanted in zip(models, bench.wanted, strict=True):
            assert architecture_of(model.config).layers == wanted.architecture.layers
            shapes = {tuple(parameter.shape) for parameter in model.parameters()}
            assert len(shapes) > 1
            assert set(timing.turn(model, tokens, ["decode_ms"])) == {"decode_ms"}
            assert set(timing.turn(model, tokens)) == {"prefill_ms", "decode_ms"}
