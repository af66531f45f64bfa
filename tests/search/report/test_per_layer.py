"""What is said of students whose layers differ: whoever won, and how well cheap scores ranked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pruning import Architecture, Block
from search.config.names import CANDIDATE
from search.finals.measure import Measured, MeasuredStudents
from search.report.per_layer import compared_kinds, per_layer_verdicts, score_correlations
from search.results.per_layer import (
    BlockLoss,
    CombinationResult,
    PerLayerResult,
    block_rows,
    combination_rows,
    layer_rows,
)
from search.results.results import LatencyResult, ServingCosts
from search.results.results_file import read_results, write_results
from search.workers.full_runs import FullRun
from tests.search.finals.test_selection import FIRST
from tests.search.finished import RESULTS
from tests.search.report.test_verdicts import measured

LAYERED = Architecture.of_blocks(
    64, [Block(8, 2, 96), Block(8, 2, 96), Block(0, 0, 48), Block(4, 1, 0)]
)
COSTS = [
    ServingCosts(1000, 900, 1000, 2e6, 1e6, {"decode_ms": LatencyResult(2.0, 2.5)}),
    ServingCosts(
        *(1100, 900, 1100, 3e6, 1e6),
        {"prefill_ms": LatencyResult(9.0, None), "decode_ms": LatencyResult(3.0, None)},
    ),
]


def student(shape: Architecture, kl: float) -> Measured:
    return measured(FullRun(CANDIDATE, shape), kl)


def said(winners: list[Measured]) -> str:
    students = MeasuredStudents(winners, {})
    found = PerLayerResult(
        sub_blocks=["ffn"], combinations=[], ended=[], compared=compared_kinds(students)
    )
    (line,) = per_layer_verdicts(found, COSTS, students)
    return line.text


@pytest.mark.parametrize(
    ("kls", "expected"),
    [((0.5, 0.7), "is better than"), ((0.7, 0.5), "is worse than"), ((0.5, 0.5), "cannot be told")],
)
def test_the_verdict_is_that_of_the_interval(kls: tuple[float, float], expected: str) -> None:
    jitter = np.random.default_rng(1).normal(size=200) * 0.02
    one, other = student(LAYERED, kls[0]), student(FIRST, kls[1])
    other.test[0].kl[:] += jitter
    line = said([one, other])
    assert f"whose layers differ {expected} the best whose layers are alike" in line or (
        f"whose layers differ {expected} apart from the best whose layers are alike" in line
    )
    costs = "2 MB memory, 2.5 ms per decoding step against 1,100 parameters, 3 MB memory, 3 ms per "
    assert costs in line and "prefill" not in line
    assert "after 8,000 tokens each" in line


def test_one_kind_alone_is_said() -> None:
    assert "No trial offered a student whose layers differ for" in said([student(FIRST, 0.5)])
    assert "a student whose layers are alike for full" in said([student(LAYERED, 0.5)])
    assert per_layer_verdicts(None, COSTS, MeasuredStudents([student(FIRST, 0.5)], {})) == []


def combination(place: int, depth: int, *, score: float | None = None) -> CombinationResult:
    """Ranked by its place by all scores, but for the summed one where it is given."""
    blocks = [Block(8, 2, 96)] * (depth - 1) + [Block(8, 2, place + 1)]
    return CombinationResult(
        architecture=Architecture.of_blocks(64, blocks),
        name=f"per-layer {place}",
        control=None,
        round=1,
        score=float(place) if score is None else score,
        proven=True,
        gap=0.0,
        distance=1,
        zero_shot=place + 1.0,
        tokens=100,
        kl=place / 2 + 1,
    )


def test_sums_are_compared_within_a_depth_only() -> None:
    same = [combination(place, 4) for place in range(5)]
    others = [combination(9, 3, score=-5.0), combination(8, 3, score=-4.0)]
    found = {
        (pair.predictor, pair.outcome): pair for pair in score_correlations([*same, *others], 100)
    }
    pair = found["summed score at depth 4", "KL before training"]
    assert pair.candidates == 5 and pair.spearman.value == pytest.approx(1)
    assert found["KL before training", "selection KL after the short run"].candidates == 7
    later = [replace(combination(place, 4, score=-9.0), round=2) for place in range(5, 9)]
    first, *_ = score_correlations([*same, *later], 100)
    assert (first.predictor, first.candidates) == ("summed score at depth 4", 5)
    stopped = [replace(one, tokens=50) for one in same]
    assert [pair.outcome for pair in score_correlations(stopped, 100)] == ["KL before training"]


def test_tables(tmp_path: Path) -> None:
    assert layer_rows(LAYERED) == [
        ["0 to 1", "8/2", "96"],
        ["2", "none", "48"],
        ["3", "4/1", "none"],
    ]
    mixture = Architecture.of_blocks(64, [Block(8, 2, 0, 4, 32), Block(8, 2, 96, window=1)])
    assert layer_rows(mixture) == [["0", "8/2", "4x32"], ["1", "8/2w", "96"]]
    losses = [BlockLoss(0, "F48", 0.5, 0.25, 100, True), BlockLoss(1, "F48", 0.3, 0.5, 300, False)]
    assert block_rows(losses) == [["F48", "2", "0.4000", "0.3750", "1", "100 to 300"]]
    unnamed = replace(combination(1, 4), name=None, kl=None, tokens=None, proven=False)
    rows = combination_rows(
        PerLayerResult(sub_blocks=["ffn"], combinations=[unnamed, combination(2, 4)], ended=[])
    )
    assert [row[0] for row in rows] == ["per-layer 2", "solution of depth 4"]
    assert rows[1][3:] == ["0.00%, not proven", "1", "2.0000", "", ""]
    layered = PerLayerResult(sub_blocks=["ffn"], combinations=[unnamed], ended=["a"], blocks=losses)
    results = replace(RESULTS, per_layer=layered)
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
