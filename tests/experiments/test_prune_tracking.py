"""A cut is sent to trackers as one run."""

from pathlib import Path

import pytest

from experiments.prune.config import PruneConfig
from experiments.prune.tracking import track_cut, trackers_of
from tests.fake_trackers import install


def test_a_cut_is_one_run_with_its_shape_and_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = install(monkeypatch)
    output = tmp_path / "student"
    config = PruneConfig("teacher", "corpus", output, ffn=64, log_to=["wandb", "mlflow"])
    output.mkdir()
    (output / "prune.json").write_text("{}")
    facts = {
        "teacher": "teacher",
        "parameters": 1000,
        "architecture": {"layers": 4, "ffn": 64, "blocks": None},
        "test": {"zero_shot_kl": 0.5},
    }
    track_cut(trackers_of(config), config, facts)
    (run,) = wandb.runs.values()
    assert run.logged == [(0, {"zero_shot_kl": 0.5})] and run.options["config"]["ffn"] == 64
    (kept,) = mlflow.runs.values()
    assert kept.params["parameters"] == 1000 and "blocks" not in kept.params
    assert kept.files == [str(output / "prune.json")] and kept.status == "FINISHED"
    assert mlflow.uris == [f"sqlite:///{tmp_path / 'student-log' / 'mlflow.db'}"]
