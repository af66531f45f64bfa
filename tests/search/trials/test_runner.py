"""Trials on slots: how often the study is asked for work, and what is told it of each trial."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from optuna.trial import TrialState
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError
from ray.util.metrics import Gauge

from common.errors import SearchStopped
from common.values import in_ascii
from distill.recipes.reports import RunReport
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from search.cluster.ray_errors import KILLED, OUT_OF_MEMORY, WorkerFailure
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.space.space import Space
from search.study.record import Record
from search.trials import runner as runner_module
from search.trials.plan import TrialPlan
from search.trials.runner import TrialRunner, run_trials
from search.workers import slots as slots_module
from search.workers.slots import SlotPool
from tests.search.assets import assets_in


@pytest.fixture
def kills() -> list[int]:
    """How many processes the kernel has killed for memory."""
    return [0]


@pytest.fixture
def runner(
    study: optuna.Study,
    space: Space,
    record_on: Callable[..., Record],
    tmp_path: Path,
    kills: list[int],
) -> TrialRunner:
    plan = TrialPlan(
        study="s",
        target=2,
        assets=assets_in(tmp_path, training=ResolvedTraining(batch=8, precision="fp32")),
        limits=RunLimits(100, (1,)),
        checkpoints=tmp_path,
        max_failures=3,
        room=Room(Resources(2, 1, 0.0), lambda: kills[0]),
        errors=tmp_path / "ray-errors.log",
    )
    return TrialRunner(record_on(study, space), plan, SlotPool(plan.room, None))


def start(runner: TrialRunner) -> int | None:
    """The number of a trial that is started, if one is."""
    trial = runner.next_trial()
    if trial is None:
        return None
    runner.running[trial.number] = None  # type: ignore[assignment]
    return trial.number


def fail(runner: TrialRunner, number: int, problem: WorkerFailure | RayError) -> None:
    """A trial that runs ends so."""
    del runner.running[number]
    runner.failed(number, problem)


DISK_FULL = WorkerFailure("OSError: full", "Traceback\n  in it")


def outcome(line: str) -> str:
    """The line of a trial without the time that the others may take."""
    said, _, left = line.rpartition("; about ")
    assert re.fullmatch(r"\d+ s left", left)
    return said


@pytest.fixture
def asked(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that the study is asked."""
    found: list[int] = []
    ask = runner.record.next_trial

    def counted(target: int | None = None) -> Any:
        found.append(len(found))
        return ask(target)

    monkeypatch.setattr(runner.record, "next_trial", counted)
    return found


def test_a_study_without_work_is_not_asked_at_every_event(
    runner: TrialRunner, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "ASK_AGAIN_SECONDS", 1e9)
    runner.plan.room.limit = 3
    assert [start(runner) for _ in range(22)] == [0, 1, *[None] * 20]
    assert len(asked) == 3
    monkeypatch.setattr(runner_module, "ASK_AGAIN_SECONDS", 0.0)
    assert start(runner) is None
    assert len(asked) == 4, "another driver's trial may have failed meanwhile"


def test_a_place_that_falls_free_is_taken_at_once(
    runner: TrialRunner, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "ASK_AGAIN_SECONDS", 1e9)
    assert [start(runner) for _ in range(3)] == [0, 1, None]
    fail(runner, 0, DISK_FULL)
    assert start(runner) == 2
    fail(runner, 1, WorkerCrashedError())
    assert start(runner) == 3, "it takes the second trial up again"
    assert start(runner) is None


def test_a_trial_that_died_has_one_line_and_the_rest_is_in_a_file(
    runner: TrialRunner, lines: list[str], tmp_path: Path
) -> None:
    start(runner)
    problem = WorkerCrashedError()
    fail(runner, 0, problem)
    (failed,) = runner.record.trials(TrialState.FAIL)
    error = failed.user_attrs["error"]
    assert error == f"{KILLED} (more in ray-errors.log)"
    assert str(problem) in (tmp_path / "ray-errors.log").read_text()
    assert lines[0].startswith("[0 of 2] trial-0000 ") and lines[0].count("\n") == 0
    assert outcome(lines[0]).endswith(f": {error}; taking it up again")
    (waiting,) = runner.record.trials(TrialState.WAITING)
    assert waiting.user_attrs["interruptions"] == 1 and runner.plan.room.limit == 2
    assert "ended" not in runner._facts(), "it did not fail, since it goes on"


RAY_SAYS = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
KERNEL = WorkerCrashedError()


@pytest.mark.parametrize("problem", [RAY_SAYS, KERNEL])
def test_a_trial_killed_for_memory_is_put_back_and_fewer_run(
    runner: TrialRunner, lines: list[str], kills: list[int], problem: RayError
) -> None:
    assert [start(runner), start(runner)] == [0, 1]
    kills[0] += problem is KERNEL
    fail(runner, 0, problem)
    assert OUT_OF_MEMORY in lines[0] and lines[0].count("\n") == 0
    assert outcome(lines[0]).endswith("put back, and no more than 1 at once from now on")
    (waiting,) = runner.record.trials(TrialState.WAITING)
    assert waiting.user_attrs["interruptions"] == 0, "that is no retry"
    assert runner.record.failures_in_a_row == 0
    assert start(runner) is None, "the other still runs"
    fail(runner, 1, DISK_FULL)
    assert start(runner) == 2, "it goes on alone"
    assert start(runner) is None


def test_a_trial_that_found_no_memory_to_allocate_is_put_back_too(
    runner: TrialRunner, lines: list[str]
) -> None:
    assert [start(runner), start(runner)] == [0, 1]
    fail(runner, 0, WorkerFailure("OutOfMemory: it does not fit", "x"))
    assert "no more than 1 at once from now on" in lines[0]
    assert runner.record.failures_in_a_row == 0 and runner.too_large is None


@pytest.mark.parametrize("own_gpu", [False, True])
def test_where_one_alone_does_not_fit_nothing_is_started_any_more(
    runner: TrialRunner, lines: list[str], own_gpu: bool
) -> None:
    start(runner)
    if own_gpu:
        runner.plan.room.resources = Resources(2, 1, 1.0)
        start(runner)
    fail(runner, 0, WorkerFailure("OutOfMemoryError: CUDA out of memory", ""))
    assert outcome(lines[0]).endswith("; put back")
    assert start(runner) is None, "what else runs comes to its end"
    assert runner.too_large is not None and runner.too_large.startswith("trial-0000 ")
    assert len(runner.record.trials(TrialState.WAITING)) == 1


def test_what_a_trial_raised_has_one_line_and_its_traceback_is_in_the_file(
    runner: TrialRunner, lines: list[str], tmp_path: Path
) -> None:
    start(runner)
    fail(runner, 0, DISK_FULL)
    assert [line.count("\n") for line in lines] == [0]
    assert outcome(lines[0]).endswith("failed: OSError: full (more in ray-errors.log)")
    assert runner._facts()["ended"].startswith("1 failed; last trial-0000: failed: OSError")
    assert DISK_FULL.details in (tmp_path / "ray-errors.log").read_text()


class Machines:
    """Stands for Ray and its actors: what each trial reports, or dies of, is given."""

    def __init__(self, answers: dict[str, list[Any]]):
        """By the name of the trial, in order."""
        self.answers = answers
        self.alive: list[int] = []
        self.tasks: list[tuple[str, int]] = []
        """(name, slot) of all tasks."""
        self.started = 0

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=self._slot)

    def _slot(self) -> Any:
        self.started += 1
        number = self.started
        self.alive.append(number)

        def task(method: str) -> Any:
            def submitted(given: Any = None) -> tuple[str, Any]:
                return method, given

            def named(name: str) -> Any:
                self.tasks.append((name, number))
                return SimpleNamespace(remote=submitted)

            return SimpleNamespace(options=named)

        return SimpleNamespace(number=number, next_report=task("report"), leave=task("leave"))

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        answer = self.answers[reference[1].name].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, slot: Any) -> None:
        self.alive.remove(slot.number)


@pytest.fixture
def run(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machines]:
    """Runs the trials of the study on machines that answer so."""

    def do(**answers: list[Any]) -> Machines:
        machines = Machines({name.replace("_", "-"): found for name, found in answers.items()})
        monkeypatch.setattr(runner_module, "ray", machines)
        monkeypatch.setattr(slots_module, "ray", machines)
        runner.slots.actor = machines
        run_trials(runner.record, runner.plan, runner.slots)
        return machines

    return do


def states(runner: TrialRunner) -> Counter[str]:
    return Counter(trial.state.name for trial in runner.record.trials())


def test_a_slot_takes_up_one_trial_after_the_other_under_their_names(
    runner: TrialRunner, run: Callable[..., Machines], result_of: Callable[..., RunReport]
) -> None:
    runner.plan.room.limit = 1
    half, whole = (result_of(curve, done=done) for curve, done in HALF_AND_WHOLE)
    machines = run(trial_0000=[half, whole], trial_0001=[whole])
    names = [name.split()[0] for name, _ in machines.tasks]
    assert names == ["trial-0000", "trial-0000", "trial-0001"]
    assert {slot for _, slot in machines.tasks} == {1} and machines.alive == [1]
    runner.slots.release()
    assert machines.alive == []
    assert states(runner) == {"COMPLETE": 2}


HALF_AND_WHOLE = (({1: 1.0}, False), ({1: 1.0, 2: 0.5}, True))


def test_a_slot_is_not_used_again_after_a_failure(
    runner: TrialRunner, run: Callable[..., Machines], result_of: Callable[..., RunReport]
) -> None:
    runner.plan.room.limit = 1
    done = result_of({1: 1.0}, done=True)
    machines = run(
        trial_0000=[DISK_FULL], trial_0001=[KERNEL], trial_0002=[done], trial_0003=[done]
    )
    assert [slot for _, slot in machines.tasks] == [1, 2, 3, 3] and machines.alive == [3]
    assert states(runner) == {"FAIL": 2, "COMPLETE": 2}


def test_what_was_stopped_early_is_left_and_its_slot_goes_on(
    runner: TrialRunner,
    run: Callable[..., Machines],
    result_of: Callable[..., RunReport],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner.plan.room.limit = 1
    monkeypatch.setattr(Record, "report", lambda self, number, report: number == 0)
    machines = run(trial_0000=[result_of({1: 2.0})], trial_0001=[result_of({1: 1.0}, done=True)])
    names = [" ".join((name.split()[0], name.split()[-1])) for name, _ in machines.tasks]
    assert names[1] == "trial-0000 stops" and machines.alive == [1]
    assert states(runner) == {"PRUNED": 1, "COMPLETE": 1}


def test_where_one_alone_does_not_fit_the_search_stops(
    runner: TrialRunner, run: Callable[..., Machines]
) -> None:
    runner.plan.room.limit = 1
    with pytest.raises(SearchStopped, match="trial-0000 .* --training.micro_batch .8 now."):
        run(trial_0000=[RAY_SAYS])


def test_a_record_that_cannot_be_written_ends_the_trials_and_fails_none(
    runner: TrialRunner,
    run: Callable[..., Machines],
    result_of: Callable[..., RunReport],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_answer(*_: Any) -> Any:
        raise SearchStopped("the database does not answer")

    monkeypatch.setattr(runner.record, "report", no_answer)
    with pytest.raises(SearchStopped, match="does not answer"):
        run(trial_0000=[result_of({1: 1.0})])
    assert states(runner) == {"RUNNING": 2}
    assert runner.slots.actor.alive == [] and lines == []


def test_no_trial_is_begun_when_time_is_up_and_those_that_run_stay_live(
    runner: TrialRunner, run: Callable[..., Machines], result_of: Callable[..., RunReport]
) -> None:
    late = iter([False, False, False])
    runner.plan = replace(runner.plan, out_of_time=lambda: next(late, True))
    run(trial_0000=[result_of({1: 1.0})], trial_0001=[result_of({1: 1.0})])
    assert states(runner) == {"RUNNING": 2}
    assert list(runner.record.live) == [0, 1]


def test_what_runs_is_left_where_no_report_comes_when_time_is_up(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = start(runner)
    dropped: list[Any] = []
    monkeypatch.setattr(runner.slots, "drop", dropped.append)
    monkeypatch.setattr(ray, "wait", lambda *_, **__: ([], []))
    runner.running = {"report": SimpleNamespace(number=number, slot="its slot")}  # type: ignore[dict-item]
    runner.plan = replace(runner.plan, out_of_time=lambda: True)
    runner._take_up_report()
    assert runner.running and not dropped, "a report may be near"
    monkeypatch.setattr(runner_module, "LATE_SECONDS", -1.0)
    runner._take_up_report()
    assert not runner.running and dropped == ["its slot"] and list(runner.record.live) == [number]


def test_metrics_are_told_apart_by_any_name_of_a_study() -> None:
    names = ["espalier", "日本語 🙂", "日本語 🙁"]
    tags = [in_ascii(name) for name in names]
    assert tags[0] == names[0] and len(set(tags)) == 3
    gauge = Gauge("espalier_test", tag_keys=("study",))
    for tag in tags:
        gauge.set(1.0, {"study": tag})


class Others:
    """Runs that may begin where there is no trial, two of them."""

    def __init__(self) -> None:
        self.running: dict[Any, Any] = {}
        self.left = 2

    def start(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.running[f"other {self.left}"] = None
        return True

    def take_up(self, reference: Any) -> None:
        del self.running[reference]


def test_other_runs_begin_where_the_last_trials_leave_a_slot_free(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.other = others = Others()
    monkeypatch.setattr(runner, "_take_up_report", lambda: None)
    monkeypatch.setattr(
        runner, "_step", lambda run: runner.running.update({f"trial {run.number}": run})
    )
    monkeypatch.setattr(runner.slots, "take", lambda: None)
    assert runner._go_on()
    assert len(runner.running) == 2 and others.left == 2, "no slot is free"
    runner.running.popitem()
    assert runner._go_on()
    assert others.left == 1 and runner.next_trial() is None, "the slot is taken now"
    others.take_up("other 1")
    runner.running.clear()
    assert not runner._go_on()
    assert others.left == 1, "after the trials, they are the full runs' own"
