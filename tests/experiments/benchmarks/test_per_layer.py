"""The benchmark of students whose layers differ compares each with the uniform one of its limit."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.files import append_rows, read_rows
from experiments.benchmarks.per_layer.arms import (
    PER_LAYER,
    UNIFORM,
    Arm,
    arms_of,
    by_source,
    selection_runs,
    test_runs,
)
from experiments.benchmarks.per_layer.choosing import Choice
from experiments.benchmarks.per_layer.figure import figure
from experiments.benchmarks.per_layer.report import (
    Line,
    Results,
    error_table,
    markdown,
    source_table,
)
from experiments.benchmarks.per_layer.runs import TEST, Measured, Run
from experiments.benchmarks.per_layer.setting import NESTED, SEPARATE, UNTRAINED, Limit
from pruning import Architecture
from search.config import BudgetConfig
from search.library import BlockError
from search.space import CostModel
from tests.pruning.models import build_config

test_runs.__test__ = False  # type: ignore[attr-defined]
HALF = Limit("parameters", 0.5)
UNIFORMS = ["L3 H54 A9/3 F8", "L2 H54 A9/3 F24"]
OTHERS = ["L3 H54 A[9/3 - 3/1] F[40 16*2]", "L3 H54 A[- 9/3 3/1] F40"]
CHOICE = Choice(1e4, UNIFORMS, OTHERS, {"greedy": OTHERS[0], "random": UNIFORMS[0]}, ["a note"])
OPTIONS = argparse.Namespace(short_tokens=100, full_tokens=200, seeds=2, shares=[0.5])
TIMES = dict.fromkeys((*UNIFORMS, *OTHERS), 2.0)


def measured(runs: list[Run], kl: Callable[[Run], float]) -> Measured:
    """Rows of two sequences."""
    return Measured(
        [{**vars(run), "kl_sequences": [kl(run), kl(run) + 0.01 * run.seed]} for run in runs]
    )


def kl_of(run: Run) -> float:
    """Second candidates are the better ones, per-layer students the best."""
    shapes = [*UNIFORMS, *OTHERS]
    return 4 - shapes.index(run.architecture) - run.tokens / 1000


@pytest.fixture
def arms() -> list[Arm]:
    chosen = measured(selection_runs(OPTIONS, [CHOICE]), kl_of)
    return arms_of(OPTIONS, HALF, CHOICE, measured=chosen)


@pytest.fixture
def lines(arms: list[Arm]) -> list[Line]:
    return results(test_runs(OPTIONS, arms)).lines(arms, {HALF: arms[0]})


def results(runs: list[Run]) -> Results:
    costs = CostModel.of(build_config("llama-gqa-tied"), BudgetConfig())
    return Results(OPTIONS, measured(runs, kl_of), costs, TIMES)


def test_the_best_of_each_kind_after_short_runs_are_compared(arms: list[Arm]) -> None:
    assert {arm.name: str(arm.architecture) for arm in arms} == {
        UNIFORM: UNIFORMS[1],
        PER_LAYER: OTHERS[1],
        "greedy": OTHERS[0],
        "random": UNIFORMS[0],
    }


def test_no_run_comes_twice(arms: list[Arm]) -> None:
    runs = test_runs(OPTIONS, arms)
    assert len(runs) == len(set(runs)) == 4 * (1 + 2 + 2)
    again = Arm(HALF, "largest", arms[1].architecture)
    assert test_runs(OPTIONS, [*arms, again]) == runs
    uniform = Architecture.parse(UNIFORMS[0])
    made = [
        Run.of(uniform, source=source, tokens=0, seed=seed, split=TEST)
        for source in (UNTRAINED, NESTED)
        for seed in (0, 1)
    ]
    assert len(set(made)) == 1, "a uniform student has no part in the library"


def test_differences_are_to_the_uniform_student_of_the_limit(lines: list[Line]) -> None:
    by_arm = {line.arm: line for line in lines}
    assert by_arm[UNIFORM].difference["200"].mean == 0
    assert by_arm[PER_LAYER].difference["200"].mean == pytest.approx(-2)
    assert by_arm["random"].difference["200"].mean == pytest.approx(1)
    assert by_arm[PER_LAYER].kl["200"].mean == pytest.approx(0.8 + 0.0025)
    assert by_arm[PER_LAYER].kl["200"].seeds == 2
    assert by_arm[PER_LAYER].costs["decode_ms"] == 2.0
    assert json.loads(json.dumps(by_arm[UNIFORM].to_dict()))["kl"]["0"]["mean"] == 3


def test_an_arm_whose_runs_are_not_all_there_has_no_line(arms: list[Arm]) -> None:
    runs = test_runs(OPTIONS, arms)
    left = [run for run in runs if (run.architecture, run.seed) != (OTHERS[0], 1)]
    found = results(left).lines(arms, {HALF: arms[0]})
    assert [line.arm for line in found] == [UNIFORM, PER_LAYER, "random"]


def test_the_table_has_the_best_in_bold_and_the_notes_below(lines: list[Line]) -> None:
    teacher = {"parameters": 1e5, "memory": 1e5, "decode_ms": 4.0}
    text = markdown({HALF: CHOICE.notes, Limit("memory", 0.3): []}, lines, teacher=teacher)
    assert text[0] == "**At 50% of the teacher's parameters**"
    (best,) = [line for line in text if "**0.80" in line]
    assert best.startswith(f"| per-layer | {OTHERS[1]} |")
    assert "- a note" in text
    assert not any("memory" in line for line in text)


def test_students_by_their_blocks(arms: list[Arm]) -> None:
    sources = by_source(arms)
    assert [arm.source for arm in sources] == [UNTRAINED, NESTED, SEPARATE]
    assert {str(arm.architecture) for arm in sources} == {OTHERS[1]}
    found = results(test_runs(OPTIONS, [*arms, *sources])).lines(sources, {HALF: arms[0]})
    table = source_table([HALF], found)
    assert [line.split(" | ")[1] for line in table[2:5]] == [UNTRAINED, NESTED, SEPARATE]


def test_errors_of_sizes_that_one_way_alone_trained() -> None:
    nested = [BlockError(layer, "F8", 0.4, 0.3 * layer, 100, "all") for layer in (1, 2)]
    nested.append(BlockError(0, "F8 without attention", 0.5, 0.25, 50, "alone"))
    separate = [BlockError(0, "F8", 0.4, 0.3, 40, "F8")]
    table = error_table({NESTED: nested, SEPARATE: separate})
    assert table[2:4] == [
        "| F8 | 0.400 | 0.450, 100; as cut in 1 of 2 layers | 0.300, 40 |",
        "| F8 without attention | 0.500 | 0.250, 50 | not trained |",
    ]


def test_the_figure_orders_students_as_their_kl(lines: list[Line]) -> None:
    root = ElementTree.fromstring(figure([HALF], lines))
    name = "{http://www.w3.org/2000/svg}circle"
    filled = [c for c in root.iter(name) if c.get("fill") != "#ffffff"][1:]  # after the legend's
    places = [float(circle.get("cx", "nan")) for circle in filled]
    means = [line.kl["200"].mean for line in lines]
    assert len(places) == len(means) == 4
    assert sorted(range(4), key=places.__getitem__) == sorted(range(4), key=means.__getitem__)


def test_a_row_that_a_kill_cut_off_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"seed": 0}\n{"seed": 1')
    assert read_rows(file) == [{"seed": 0}]
    append_rows(file, [{"seed": 1}])
    assert read_rows(file) == [{"seed": 0}, {"seed": 1}]
