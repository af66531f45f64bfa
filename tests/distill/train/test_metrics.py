"""What is measured goes to JSON lines, TensorBoard and, where wanted, wandb."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill import DistillError
from distill.train.metrics import MetricLog


class FakeRun:
    id = "run-1"

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((figures, step))

    def finish(self) -> None:
        self.finished = True


def test_a_log_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    for tokens in (100, 200):
        log = MetricLog(tmp_path)
        log.write(tokens, {"kl": 1 / tokens})
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["tokens"], line["kl"]) for line in lines] == [(100, 0.01), (200, 0.005)]
    events = list((tmp_path / "tensorboard").iterdir())
    assert events and all(b"kl" in event.read_bytes() for event in events)


def test_wandb_gets_the_same_and_its_run_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        started.append(options)
        runs.append(FakeRun())
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for tokens in (100, 200):
        log = MetricLog(tmp_path, "project", "name")
        log.write(tokens, {"kl": 0.5})
        log.close()
    assert [options["id"] for options in started] == [None, "run-1"]
    assert {options["project"] for options in started} == {"project"}
    assert [run.logged for run in runs] == [[({"kl": 0.5}, 100)], [({"kl": 0.5}, 200)]]
    assert all(run.finished for run in runs)


def test_wandb_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DistillError, match="--wandb is 'project'.*pip install wandb"):
        MetricLog(tmp_path, "project")
