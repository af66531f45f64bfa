"""What is measured goes to JSON lines, TensorBoard and, where wanted, wandb."""

import json
import sys
from pathlib import Path

import pytest

from distill import DistillError
from distill.train.metrics import MetricLog
from tests.fake_trackers import install


def test_a_log_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    for tokens in (100, 200):
        log = MetricLog(tmp_path)
        log.write(tokens, {"kl": 1 / tokens})
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["tokens"], line["kl"]) for line in lines] == [(100, 0.01), (200, 0.005)]
    events = list((tmp_path / "tensorboard").iterdir())
    assert events and all(b"kl" in event.read_bytes() for event in events)


def test_trackers_get_the_same_and_a_run_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = install(monkeypatch)
    (tmp_path / "wandb-id").write_text("of-an-older-version")
    for tokens in (100, 200):
        log = MetricLog(tmp_path, "project", "name", log_to=["mlflow"])
        log.write(tokens, {"kl": 0.5})
        log.close(finished=tokens == 200)
    (run,) = wandb.runs.values()
    assert run.id == "of-an-older-version" and run.options["project"] == "project"
    assert run.logged == [(100, {"kl": 0.5}), (200, {"kl": 0.5})]
    (kept,) = mlflow.runs.values()
    assert kept.metrics == [(100, "kl", 0.5), (200, "kl", 0.5)] and kept.status == "FINISHED"


def test_wandb_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DistillError, match="--wandb is 'project'.*pip install wandb"):
        MetricLog(tmp_path, "project")
