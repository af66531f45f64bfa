"""A study at trackers: every curve once, over any number of starts, and what came of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from common.trackers import SafeTrackers, open_trackers
from distill.recipes.reports import RunReport
from search.dashboards.tracking import StudyTracking
from search.space.space import Space
from search.study.record import Record
from search.workers.full_runs import FullResult, FullRun
from tests.fake_trackers import install


def followed(record: Record, directory: Path) -> StudyTracking:
    """The record at a new start of its study, followed by trackers."""
    trackers = SafeTrackers(open_trackers(["wandb", "mlflow"], directory, group="s"))
    tracking = StudyTracking(trackers, "key", name="s", facts={"budget": "0.5"})
    tracking.recall(record.study.get_trials(deepcopy=False))
    record.watcher = tracking
    return tracking


def started(record: Record) -> int:
    trial = record.next_trial()
    assert trial is not None
    return trial.number


def test_a_curve_is_sent_once_however_often_the_trial_is_taken_up(
    study: optuna.Study,
    small_space: Space,
    record_on: Callable[..., Record],
    result_of: Callable[..., RunReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wandb, mlflow = install(monkeypatch)
    record = record_on(study, small_space)
    tracking = followed(record, tmp_path)
    number = started(record)
    record.report(number, result_of({100: 3.0}))
    assert record.lost(number, "its process died")
    number = started(record)
    record.report(number, result_of({100: 3.0, 200: 2.0}))
    record.queue.release()
    tracking.trackers.leave()

    record = record_on(study, small_space)  # the next start
    tracking = followed(record, tmp_path)
    number = started(record)
    record.report(number, result_of({100: 3.0, 200: 2.0, 300: 1.5}, done=True))
    record.complete(number, 1.5)
    other = started(record)
    record.report(other, result_of({100: 9.0}))
    record.stop_early(other)
    failing = started(record)
    record.fail(failing, "TrainingDiverged: at step 3")

    runs = mlflow.by_name()
    assert [run.tags.get("state") for run in runs.values()] == [
        None,
        "complete",
        "stopped early",
        "failed",
    ]
    first = wandb.runs["key-trial-0000"]
    assert [(tokens, figures["kl"]) for tokens, figures in first.logged] == [
        (100, 3.0),
        (200, 2.0),
        (300, 1.5),
    ]
    assert first.summary["final_kl"] == 1.5 and first.summary["state"] == "complete"
    assert first.options["config"]["layers"] >= 3 and first.options["group"] == "s"
    (failed,) = [run for name, run in runs.items() if name.startswith(f"trial-{failing:04d}")]
    assert failed.status == "FAILED" and failed.tags["error"] == "TrainingDiverged: at step 3"
    whole = [(step, value) for step, name, value in runs["s"].metrics if name == "best_kl"]
    assert whole == [(1, 1.5), (2, 1.5)]


def test_full_runs_and_the_outcome_are_sent(
    small_space: Space,
    result_of: Callable[..., RunReport],
    study: optuna.Study,
    record_on: Callable[..., Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wandb, mlflow = install(monkeypatch)
    tracking = followed(record_on(study, small_space), tmp_path)
    shape, report = small_space.feasible[0], result_of({100: 3.0, 200: 2.0}, done=True)
    selection: Any = SimpleNamespace(means=lambda: {"kl": 2.0})
    result = FullResult(
        tokens=200,
        seconds=4.0,
        resumed_tokens=0,
        curve=report.curve,
        selection=selection,
        answers=None,
        run=FullRun("candidate", shape),
        directory=tmp_path,
    )
    tracking.full_run_ended(f"full candidate {shape}", result)
    tracking.full_run_ended("full random initialisation", None)
    student: Any = SimpleNamespace(
        architecture=shape,
        parameters=50,
        test=SimpleNamespace(kl=SimpleNamespace(mean=0.5), ce=SimpleNamespace(mean=1.5)),
    )
    teacher: Any = SimpleNamespace(parameters=100, test=student.test)
    results: Any = SimpleNamespace(
        winners=[student], teacher=teacher, baselines={"uniform shrink": student}
    )
    file = tmp_path / "results.json"
    file.write_text("{}")
    tracking.concluded({"": results}, [file])
    runs = mlflow.by_name()
    full = runs[f"full candidate {shape}"]
    assert [(step, value) for step, name, value in full.metrics if name == "kl"] == [
        (100, 3.0),
        (200, 2.0),
    ]
    assert full.params["role"] == "candidate" and full.status == "FINISHED"
    assert runs["full random initialisation"].status == "FAILED"
    summary = wandb.runs["key-study"].summary
    assert summary["winner"] == str(shape) and summary["winner_share_of_teacher"] == 0.5
    assert summary["uniform_shrink_test_kl"] == 0.5
    assert wandb.runs["key-study"].files == ["key-study-results.json"]
    assert runs["s"].status == "FINISHED"
