"""The notebook of the demo: its cells run on a study like the demo's."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pytest
from optuna.distributions import IntDistribution

from search.results.results_file import write_results
from tests.driver import ROOT
from tests.search.finished import RESULTS

NOTEBOOK = ROOT / "experiments" / "demo" / "demo.ipynb"
DEMO = "experiments/demo/run_demo.py"
SHAPES = [(2, 0.9), (3, 0.7), (4, 0.5), (5, 0.6), (6, None)]
"""Layers, and the score; None: stopped early."""


def cells() -> list[str]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def finished_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the demo has nothing left to do, as the current one."""
    (tmp_path / DEMO).parent.mkdir(parents=True)
    (tmp_path / DEMO).write_text("")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    write_results(RESULTS, tmp_path / "runs" / "demo" / "results.json")
    study = optuna.create_study(
        study_name="demo", storage=f"sqlite:///{tmp_path}/runs/demo/study.db"
    )
    for layers, score in SHAPES:
        study.add_trial(
            optuna.trial.create_trial(
                value=score,
                state=optuna.trial.TrialState.COMPLETE if score else optuna.trial.TrialState.PRUNED,
                params={"layers": layers},
                distributions={"layers": IntDistribution(2, 6)},
                user_attrs={"architecture": f"L{layers}", "parameters": layers * 1_000_000},
                intermediate_values={512: 1.0} | ({1024: score} if score else {}),
            )
        )
    monkeypatch.chdir((tmp_path / DEMO).parent)  # where a notebook starts
    return tmp_path


def test_every_cell_runs(finished_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    for cell in cells():
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    assert Path.cwd() == finished_demo
    assert list(names["trials"].kl) == [0.9, 0.7, 0.5, 0.6, 1.0]
    assert set(names["importances"].index) == {"layers"}
    assert capsys.readouterr().out.strip()
