"""The bridge to Ray: how often the study is asked for work."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.util.metrics import Gauge

from common.errors import SearchStopped
from common.values import in_ascii
from distill.recipes.reports import RunReport
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from search.cluster.ray_errors import KILLED, OUT_OF_MEMORY
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.space.space import Space
from search.study.record import Record
from search.trials import searcher as searcher_module
from search.trials import tuner as trials
from search.trials.plan import TrialPlan
from search.trials.searcher import StudyScheduler, StudySearcher, StudyStopper
from search.workers.actors import TASK
from tests.search.assets import assets_in


@pytest.fixture
def kills() -> list[int]:
    """How many processes the kernel has killed for memory."""
    return [0]


@pytest.fixture
def searcher(
    study: optuna.Study,
    space: Space,
    record_on: Callable[..., Record],
    tmp_path: Path,
    kills: list[int],
) -> StudySearcher:
    plan = TrialPlan(
        study="s",
        target=2,
        assets=assets_in(tmp_path, training=ResolvedTraining(batch=8, precision="fp32")),
        limits=RunLimits(100, (1,)),
        checkpoints=tmp_path,
        max_failures=3,
        room=Room(Resources(2, 1, 0.0), lambda: kills[0]),
        ray_directory=tmp_path,
        errors=tmp_path / "ray-errors.log",
    )
    return StudySearcher(record_on(study, space), plan)


def outcome(line: str) -> str:
    """The line of a trial without the time that the others may take."""
    said, _, left = line.rpartition("; about ")
    assert re.fullmatch(r"\d+ s left", left)
    return said


@pytest.fixture
def asked(searcher: StudySearcher, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that the study is asked."""
    found: list[int] = []
    ask = searcher.record.next_trial

    def counted(target: int | None = None) -> Any:
        found.append(len(found))
        return ask(target)

    monkeypatch.setattr(searcher.record, "next_trial", counted)
    return found


def test_a_study_without_work_is_not_asked_at_every_event(
    searcher: StudySearcher, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searcher_module, "ASK_AGAIN_SECONDS", 1e9)
    searcher.plan.room.limit = 3
    for name in ("a", "b"):
        assert TASK in searcher.suggest(name)
    assert [searcher.suggest(f"c{n}") for n in range(20)] == [None] * 20
    assert len(asked) == 3
    monkeypatch.setattr(searcher_module, "ASK_AGAIN_SECONDS", 0.0)
    assert searcher.suggest("d") is None
    assert len(asked) == 4, "another driver's trial may have failed meanwhile"


def test_a_place_that_falls_free_is_taken_at_once(
    searcher: StudySearcher, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searcher_module, "ASK_AGAIN_SECONDS", 1e9)
    for name in ("a", "b"):
        searcher.suggest(name)
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"failed": "OSError: full"})
    assert searcher.suggest("c")[TASK].name == "trial-0002"
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d")[TASK].name == "trial-0003"
    assert searcher.suggest("e") is None


def test_a_trial_that_died_has_one_line_and_the_rest_is_in_a_file(
    searcher: StudySearcher, lines: list[str], tmp_path: Path
) -> None:
    words = "The actor is dead because its worker process has died.\n" + "more\n" * 60
    searcher.suggest("a")
    died(searcher, "a", words, tmp_path)
    (failed,) = searcher.record.trials(TrialState.FAIL)
    error = failed.user_attrs["error"]
    assert error == f"{KILLED} (more in ray-errors.log)"
    assert words in (tmp_path / "ray-errors.log").read_text()
    assert lines[0].startswith("[0 of 2] trial-0000 ") and lines[0].count("\n") == 0
    assert outcome(lines[0]).endswith(f": {error}; taking it up again")
    (waiting,) = searcher.record.trials(TrialState.WAITING)
    assert waiting.user_attrs["interruptions"] == 1 and searcher.plan.room.limit == 2


RAY_SAYS = "1 worker(s) were killed due to the node running low on memory."
KERNEL = "The actor is dead because its worker process has died."


@pytest.mark.parametrize("words", [RAY_SAYS, KERNEL])
def test_a_trial_killed_for_memory_is_put_back_and_fewer_run(
    searcher: StudySearcher, lines: list[str], kills: list[int], tmp_path: Path, words: str
) -> None:
    for name in ("a", "b"):
        searcher.suggest(name)
    kills[0] += words == KERNEL
    died(searcher, "a", words, tmp_path)
    assert OUT_OF_MEMORY in lines[0] and lines[0].count("\n") == 0
    assert outcome(lines[0]).endswith("put back, and no more than 1 at once from now on")
    (waiting,) = searcher.record.trials(TrialState.WAITING)
    assert waiting.user_attrs["interruptions"] == 0, "that is no retry"
    assert searcher.record.failures_in_a_row == 0
    assert searcher.suggest("c") is None, "the other still runs"
    searcher.on_trial_complete("b", {"failed": "OSError: full"})
    assert searcher.suggest("c")[TASK].name == "trial-0002", "it goes on alone"
    assert searcher.suggest("d") is None


def test_a_trial_that_found_no_memory_to_allocate_is_put_back_too(
    searcher: StudySearcher, lines: list[str]
) -> None:
    for name in ("a", "b"):
        searcher.suggest(name)
    searcher.on_trial_complete("a", {"failed": "OutOfMemory: it does not fit", "details": "x"})
    assert "no more than 1 at once from now on" in lines[0]
    assert searcher.record.failures_in_a_row == 0 and searcher.too_large is None


@pytest.mark.parametrize("own_gpu", [False, True])
def test_where_one_alone_does_not_fit_the_search_stops(
    searcher: StudySearcher, lines: list[str], monkeypatch: pytest.MonkeyPatch, own_gpu: bool
) -> None:
    searcher.suggest("a")
    if own_gpu:
        searcher.plan.room.resources = Resources(2, 1, 1.0)
        searcher.suggest("b")
    searcher.on_trial_complete("a", {"failed": "OutOfMemoryError: CUDA out of memory"})
    assert outcome(lines[0]).endswith("; put back")
    if own_gpu:
        assert searcher.suggest("c") is None, "the other runs to its end"
        searcher.on_trial_complete("b", {"failed": "OSError: full"})
    assert searcher.suggest("c") == Searcher.FINISHED
    assert len(searcher.record.trials(TrialState.WAITING)) == 1

    fitted = SimpleNamespace(fit=lambda: None)
    monkeypatch.setattr(trials, "StudySearcher", lambda *_, **__: searcher)
    monkeypatch.setattr(trials, "make_tuner", lambda _: fitted)
    with pytest.raises(SearchStopped, match="trial-0000 .* --training.micro_batch .8 now."):
        trials.run_trials(searcher.record, searcher.plan)


def died(searcher: StudySearcher, name: str, words: str, folder: Path) -> None:
    """Of a trial's worker, as Ray tells it."""
    (folder / "error.txt").write_text(f"Failure # 1 (occurred at some time)\n{words}")
    trial = SimpleNamespace(trial_id=name, error_file=str(folder / "error.txt"))
    StudyScheduler(searcher).on_trial_error(None, trial)
    searcher.on_trial_complete(name, error=True)


def test_what_a_trial_raised_has_one_line_and_its_traceback_is_in_the_file(
    searcher: StudySearcher, lines: list[str], tmp_path: Path
) -> None:
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"failed": "OSError: full", "details": "Traceback\n  in it"})
    assert [line.count("\n") for line in lines] == [0]
    assert outcome(lines[0]).endswith("failed: OSError: full (more in ray-errors.log)")
    assert "Traceback\n  in it" in (tmp_path / "ray-errors.log").read_text()


def test_a_record_that_cannot_be_written_ends_the_trials_and_fails_none(
    searcher: StudySearcher,
    lines: list[str],
    result_of: Callable[..., RunReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b"):
        searcher.suggest(name)
    stopper, result = StudyStopper(searcher), result_of({1: 1.0}).to_dict()
    problem = SearchStopped("the database does not answer")

    def fail(*_: Any) -> Any:
        raise problem

    monkeypatch.setattr(searcher.record, "report", fail)
    assert not stopper.stop_all()
    assert stopper("a", result)
    assert stopper.stop_all() and searcher.problem is problem
    monkeypatch.undo()
    assert stopper("b", result)
    for name in ("a", "b"):  # as Ray does where all are stopped
        searcher.on_trial_complete(name, result)
    assert searcher.suggest("c") == StudySearcher.FINISHED
    assert [trial.state for trial in searcher.record.trials()] == [TrialState.RUNNING] * 2
    assert lines == []


@pytest.mark.parametrize("call", ["suggest", "on_trial_complete"])
def test_ray_is_never_told_why_nothing_can_be_recorded(
    searcher: StudySearcher, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise SearchStopped("the database does not answer")

    searcher.suggest("a")
    monkeypatch.setattr(searcher.record, "next_trial", fail)
    monkeypatch.setattr(searcher.record, "lost", fail)
    if call == "suggest":
        assert searcher.suggest("b") == StudySearcher.FINISHED
    else:
        searcher.on_trial_complete("a", error=True)
    assert searcher.problem is not None


def test_metrics_are_told_apart_by_any_name_of_a_study() -> None:
    names = ["espalier", "日本語 🙂", "日本語 🙁"]
    tags = [in_ascii(name) for name in names]
    assert tags[0] == names[0] and len(set(tags)) == 3
    gauge = Gauge("espalier_test", tag_keys=("study",))
    for tag in tags:
        gauge.set(1.0, {"study": tag})
