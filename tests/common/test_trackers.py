"""Trackers take the same runs, go on with them, and never end the work."""

import logging
import sys
from pathlib import Path

import pytest

from common.errors import SearchError
from common.trackers import SafeTrackers, check_names, open_trackers, require_installed
from tests.fake_trackers import install

ALL = ("tensorboard", "wandb", "mlflow")


def opened(directory: Path) -> SafeTrackers:
    return SafeTrackers(open_trackers(ALL, directory, group="study"))


def test_a_run_goes_on_at_every_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, mlflow = install(monkeypatch)
    report = tmp_path / "report.html"
    report.write_text("report")
    for start, tokens in enumerate((512, 1024)):
        trackers = opened(tmp_path)
        trackers.begin("key-1", name="trial-0001", facts={"layers": 4, "architecture": "L4"})
        trackers.log("key-1", tokens, {"kl": 1 / tokens})
        if start:
            trackers.finish("key-1", {"state": "complete", "final_kl": 0.5}, files=[report])
        trackers.leave()

    (run,) = wandb.runs.values()
    assert run.logged == [(512, {"kl": 1 / 512}), (1024, {"kl": 1 / 1024})]
    assert run.options["group"] == "study" and run.options["project"] == "espalier"
    assert run.summary == {"state": "complete", "final_kl": 0.5} and run.ended == [0, 0]
    assert run.files == ["key-1-report.html"]

    (kept,) = mlflow.runs.values()
    assert kept.metrics == [(512, "kl", 1 / 512), (1024, "kl", 1 / 1024), (0, "final_kl", 0.5)]
    assert (kept.params, kept.status) == ({"layers": 4, "architecture": "L4"}, "FINISHED")
    assert kept.tags == {"espalier.run": "key-1", "state": "complete"}
    assert mlflow.uris == [f"sqlite:///{tmp_path / 'mlflow.db'}"] * 2

    events = list((tmp_path / "tensorboard" / "key-1").iterdir())
    assert len(events) == 2 and all(b"kl" in event.read_bytes() for event in events)


def test_a_run_that_is_put_down_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mlflow = install(monkeypatch)
    trackers = opened(tmp_path)
    trackers.begin("key-1", name="trial-0001", facts={})
    trackers.leave()
    assert [run.status for run in mlflow.runs.values()] == ["RUNNING"]


def test_a_tracker_that_fails_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb, mlflow = install(monkeypatch)
    trackers = opened(tmp_path)
    wandb.broken = True
    with caplog.at_level(logging.INFO):
        for number in (1, 2):
            trackers.begin(f"key-{number}", name="trial", facts={})
            trackers.log(f"key-{number}", 512, {"kl": 0.5})
    said = [record.message for record in caplog.records if "takes nothing more" in record.message]
    assert said == ["warning: wandb takes nothing more: no route to the server; the work goes on"]
    assert len(mlflow.runs) == 2 and all(run.metrics for run in mlflow.runs.values())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["neptune"], r"--log_to has 'neptune'; it takes tensorboard, wandb, mlflow"),
        (["mlflow"], r"--log_to has mlflow, which is not installed; pip install mlflow"),
    ],
)
def test_what_cannot_be_logged_to_is_refused(
    names: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SearchError, match=said):
        check_names(names)
        require_installed(names)


def test_a_tracker_that_cannot_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = install(monkeypatch)
    wandb.logged_in = False
    with pytest.raises(SearchError, match="wandb, which cannot be used: nobody is logged in"):
        opened(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    opened(tmp_path)
    monkeypatch.delattr(type(mlflow), "get_experiment_by_name")
    with pytest.raises(SearchError, match="--log_to has mlflow, which cannot be used"):
        opened(tmp_path)
