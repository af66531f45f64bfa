"""Paired differences, ratios of sums, and which differences are told apart."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.evaluation.measuring.measured import Measured, TaskScores
from experiments.evaluation.measuring.text_scores import TextScores
from experiments.evaluation.report.comparison import measures, ratio
from experiments.evaluation.report.tables import csv_table, meaning, summaries, text_table

GENERATOR = np.random.default_rng(0)
ANSWERS = GENERATOR.integers(0, 2, 400).astype(float)


def measured(label: str, parameters: int, **figures: Any) -> Measured:
    contender: Any = SimpleNamespace(label=label, source=SimpleNamespace(parameters=parameters))
    return Measured(contender, **figures)


def task(values: np.ndarray[Any, Any]) -> dict[str, TaskScores]:
    return {
        "quiz": TaskScores(
            {"acc": float(values.mean()), "ppl": 3.0}, {"acc": values.tolist()}, {"acc": True}
        )
    }


def text(nats: float) -> TextScores:
    tokens = np.arange(10, 60)
    noise = GENERATOR.normal(0, 0.1, 50)
    return TextScores(((nats + noise) * tokens).tolist(), tokens.tolist(), (4 * tokens).tolist())


def test_a_ratio_has_the_mean_and_the_spread_of_the_sums() -> None:
    """Held against the bootstrap over pieces."""
    sizes = GENERATOR.integers(1, 100, 300).astype(float)
    sums = sizes * (2 + GENERATOR.normal(0, 0.5, 300))
    values = ratio(sums, sizes)
    assert values.mean() == pytest.approx(sums.sum() / sizes.sum())
    drawn = GENERATOR.integers(300, size=(4000, 300))
    again = sums[drawn].sum(1) / sizes[drawn].sum(1)
    assert values.std(ddof=1) / 300**0.5 == pytest.approx(again.std(), rel=0.05)


def test_differences_are_paired_and_told_apart_together() -> None:
    worse, near = ANSWERS.copy(), ANSWERS.copy()
    worse[:60] = 0.0
    near[:2] = 1 - near[:2]
    every = [
        measured("whole", 100, tasks=task(ANSWERS), text=text(2.0)),
        measured("worse", 50, tasks=task(worse), text=text(2.3)),
        measured("near", 70, tasks=task(near), text=text(2.0)),
    ]
    found = {measure.name: measure for measure in measures(every)}
    accuracy = found["quiz: acc"]
    assert accuracy.figures["whole"].difference is None
    apart = accuracy.figures["worse"].difference
    assert apart is not None and apart.pairs == 400
    paired = worse - ANSWERS
    assert apart.mean == pytest.approx(paired.mean())
    assert apart.standard_error == pytest.approx(paired.std(ddof=1) / 20)
    assert apart.low < apart.mean < apart.high < 0 and apart.clear
    assert meaning(apart, accuracy) == "worse"
    close = accuracy.figures["near"].difference
    assert close is not None and not close.clear and close.low <= close.mean <= close.high
    bits = found["bits per byte"].figures
    assert bits["whole"].value == pytest.approx(2 / 4 / np.log(2), rel=0.02)
    assert bits["worse"].difference is not None and bits["worse"].difference.clear
    assert found["quiz: ppl"].figures["near"].low is None, "no mean over the questions"
    labels = ["whole", "worse", "near"]
    assert summaries(list(found.values()), labels)[0] == (
        "worse has 50.0% of the parameters of whole; worse in bits per byte, quiz: acc."
    )
    shown = "\n".join(text_table(list(found.values()), labels))
    assert "not told apart" in shown and "0.5000" not in shown.splitlines()[0]
    lines = csv_table(list(found.values())).splitlines()
    assert len(lines) == 1 + sum(len(measure.figures) for measure in found.values())


def test_equal_models_are_not_told_apart() -> None:
    same = text(2.0)
    every = [measured(label, 10, text=same, tasks=task(ANSWERS)) for label in ("a", "b")]
    for measure in measures(every):
        apart = measure.figures["b"].difference
        assert apart is None or (apart.mean == 0 and not apart.clear), measure.name
