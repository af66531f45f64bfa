"""The benchmark's library has the sizes that it says, and its figures come from solutions."""

import pytest

from experiments.benchmarks.per_layer.programme import library, measure, programme_of
from search.programme import SolverSettings


def test_the_teacher_has_the_parameters_of_llama_70b_without_its_norms() -> None:
    programme = programme_of(library(80, seed=0), 0.7, 0.5)
    assert programme.scores.shape == (80, 54)
    assert programme.best_everywhere == (0,) * 80
    parameters = programme.costs_of(programme.best_everywhere)["parameters"]
    assert parameters == 70_553_706_496 - (2 * 80 + 1) * 8192
    assert programme.full_or_left_out.sum() == 80 * 4


def test_figures_are_those_of_the_solutions(capsys: pytest.CaptureFixture[str]) -> None:
    programme = programme_of(library(8, seed=0), 0.7, 0.5)
    figures = measure(programme, SolverSettings(solutions=2), 0)
    assert figures["proven"] == 2
    first, second = figures["kl"]
    assert first <= second
    assert all(loss is None or loss >= first for loss in figures["controls"].values())
    assert "  2" in capsys.readouterr().out
