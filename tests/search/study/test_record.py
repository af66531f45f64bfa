"""The record: nothing finished is lost, nothing stays RUNNING, a continuation keeps its origin."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from common.errors import SearchError
from distill.recipes.reports import RunReport
from distill.train.settings import TrainingSettings
from search.config.sampler import SamplerSettings
from search.database.coordination import Coordination
from search.database.optuna_internals import storage_of
from search.database.storage import open_storage
from search.database.trial_facts import origin_of, tried
from search.space.anchors import CUT_AXES, UNIFORM
from search.space.space import Space
from search.study import queue as trial_queue
from search.study.agreement import check_fingerprint, open_study
from search.study.early_stopping import Rungs
from search.study.policy import anchor_lines
from search.study.record import Record

RecordOn = Callable[..., Record]
ResultOf = Callable[..., RunReport]


@pytest.fixture
def record(small_space: Space, study: optuna.Study, record_on: RecordOn) -> Record:
    return record_on(study, small_space)


def start(record: Record) -> int:
    trial = record.next_trial()
    assert trial is not None
    return trial.number


def states(record: Record) -> list[str]:
    return [trial.state.name for trial in record.trials()]


def test_reclaim_puts_an_interrupted_trial_back(record: Record, result_of: ResultOf) -> None:
    number = start(record)
    record.report(number, result_of({100: 3.0, 200: 2.0}))
    record.live.clear()  # the driver is killed
    assert record.queue.reclaim() == 1
    before, after = record.trials()
    assert (before.state, after.state) == (TrialState.FAIL, TrialState.WAITING)
    assert "interrupted" in before.user_attrs["error"]
    assert after.params == before.params
    assert after.distributions == before.distributions
    assert after.intermediate_values == before.intermediate_values == {100: 3.0, 200: 2.0}
    for name in ("architecture", "parameters", "progress"):
        assert after.user_attrs[name] == before.user_attrs[name]
    assert after.user_attrs["origin"] == 0
    assert "error" not in after.user_attrs
    assert start(record) == 1
    assert origin_of(record.live[1]) == 0
    record.live.clear()
    assert record.queue.reclaim() == 1, "a second interruption keeps the first origin"
    assert record.trials()[2].user_attrs["origin"] == 0
    assert record.trials()[2].user_attrs["interruptions"] == 2


def test_given_up_after_max_retries(record: Record) -> None:
    for taken in (1, 1, 0):
        start(record)
        record.live.clear()
        assert record.queue.reclaim() == taken
    assert states(record) == ["FAIL"] * 3
    start(record)
    assert origin_of(record.trials()[3]) == 3, "another architecture is next"
    shapes = [str(trial.user_attrs["architecture"]) for trial in record.trials()]
    assert len(set(shapes)) == 2


@pytest.mark.parametrize("when", ["before it failed", "before it was told"])
def test_a_driver_killed_while_it_reclaims_loses_nothing(
    record: Record, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    start(record)
    record.live.clear()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        target = record.study if when == "before it was told" else storage_of(record.study)
        patched.setattr(target, "tell" if target is record.study else "set_trial_user_attr", die)
        with pytest.raises(KeyboardInterrupt):
            record.queue.reclaim()
    record.queue.reclaim()
    assert states(record) == ["FAIL", "WAITING"]


def test_release_leaves_none_running(record: Record) -> None:
    for _ in range(3):
        start(record)
    record.complete(1, 1.0)
    record.queue.release()
    assert states(record) == ["FAIL", "COMPLETE", "FAIL", "WAITING", "WAITING"]
    assert not record.live
    assert record.queue.reclaim() == 0


def test_stops_by_the_user_cost_no_retry(record: Record) -> None:
    for _ in range(record.queue.max_retries + 2):
        start(record)
        record.queue.release()
    assert states(record)[-1] == "WAITING"
    assert record.trials()[-1].user_attrs["origin"] == 0


@pytest.mark.parametrize("kl", [float("nan"), float("inf")])
def test_a_kl_that_is_not_finite_fails_the_trial(record: Record, kl: float) -> None:
    record.complete(start(record), kl)
    (trial,) = record.trials()
    assert trial.state == TrialState.FAIL
    assert str(kl) in trial.user_attrs["error"]
    assert record.failures_in_a_row == 1


def test_finished_counts_complete_and_stopped_only(record: Record) -> None:
    record.complete(start(record), 1.0)
    record.stop_early(start(record))
    record.fail(start(record), "broken")
    start(record)
    record.live.clear()
    record.queue.reclaim()
    start(record)
    assert record.finished() == 2
    record.complete(4, 0.5)
    assert record.finished() == 3


def test_failures_in_a_row(record: Record) -> None:
    record.fail(start(record), "broken")
    record.fail(start(record), "broken")
    assert record.failures_in_a_row == 2
    record.complete(start(record), 1.0)
    assert record.failures_in_a_row == 0


def test_ranked(record: Record, result_of: ResultOf) -> None:
    """Complete ones by score, then the stopped ones: the longest first."""
    for kl in (3.0, 1.0, 2.0):
        number = start(record)
        record.report(number, result_of({100: 9.0, 400: kl}, done=True))
        record.complete(number, kl)
    for tokens, kl in ((100, 0.1), (200, 6.0), (200, 5.0)):
        number = start(record)
        record.report(number, result_of({tokens: kl}))
        record.stop_early(number)
    record.fail(start(record), "broken")
    start(record)
    assert [trial.number for trial in record.ranked()] == [1, 2, 0, 5, 4, 3]


def test_anchors_come_first_and_once(
    space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    anchors = space.anchors()
    record = record_on(study, space, anchors=anchors)
    assert len(anchor_lines(anchors, record.trials())) == len(CUT_AXES)
    wanted = {a for a in anchors.values() if a is not None}
    start(record)
    record.live.clear()
    again = record_on(study, space, anchors=anchors)
    again.queue.reclaim()
    for _ in wanted:
        assert again.live[start(again)].user_attrs["anchor"]
    assert tried(again.trials()) == wanted
    assert "anchor" not in again.live[start(again)].user_attrs


def test_a_study_that_has_proposed_goes_on_without_further_anchors(
    space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    older = {"largest width-only": space.feasible[0]}  # as an earlier version had it
    record = record_on(study, space, anchors=older)
    start(record)
    assert "anchor" not in record.live[start(record)].user_attrs
    anchors, trials = space.anchors(), record.trials()
    lines = anchor_lines(anchors, trials)
    left_out = [line for line in lines if line.endswith("begun without it")]
    assert len(left_out) == len({*anchors.values()} - {None} - tried(trials))
    record = record_on(study, space, anchors=anchors)
    assert "anchor" not in record.live[start(record)].user_attrs


def test_a_study_goes_on_from_the_anchors_of_an_earlier_version(
    space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    start(record_on(study, space, anchors={"largest width-only": space.feasible[0]}))
    record = record_on(study, space, anchors=space.anchors())
    assert record.live[start(record)].user_attrs["anchor"] == UNIFORM


def test_fewer_trials_than_anchors_leave_none_waiting(
    space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    record = record_on(study, space, anchors=space.anchors())
    record.complete(start(record), 1.0)
    assert states(record) == ["COMPLETE"]


def test_anchors_of_one_shape_are_one_trial(
    study: optuna.Study, record_on: RecordOn, sizes: dict[str, Any], space_of: Callable[..., Space]
) -> None:
    from transformers import LlamaConfig

    space = space_of(LlamaConfig(**sizes), 1.0, 0.0)
    record = record_on(study, space, anchors=space.anchors())
    assert len(record.policy.anchors) == len(CUT_AXES)
    start(record)
    assert record.next_trial() is None
    assert record.exhausted


def test_how_memory_is_spent_may_change_in_a_study_and_what_is_learnt_may_not(
    record: Record,
) -> None:
    def parts(**training: Any) -> dict[str, Any]:
        return {"seed": 0, "training": asdict(TrainingSettings(**{"batch": 8, **training}))}

    check_fingerprint(record.study, parts())
    record.next_trial()
    check_fingerprint(record.study, parts(micro_batch=1, gradient_checkpointing=True))
    with pytest.raises(SearchError, match="training"):
        check_fingerprint(record.study, parts(batch=4))


def test_a_study_with_trials_keeps_its_fingerprint(record: Record) -> None:
    parts = {"seed": 0, "budget": [1, 2]}
    check_fingerprint(record.study, parts)
    check_fingerprint(record.study, {"seed": 1, "budget": [1, 2]})  # nothing was tried yet
    start(record)
    check_fingerprint(record.study, {"seed": 1, "budget": [1, 2]})
    with pytest.raises(SearchError, match=r"seed \(was 1, is 0\)") as caught:
        check_fingerprint(record.study, parts)
    assert "budget" not in str(caught.value)


def test_what_an_older_version_recorded_and_may_change_now_is_no_difference(
    record: Record,
) -> None:
    check_fingerprint(record.study, {"seed": 0, "seeds": 3})
    start(record)
    check_fingerprint(record.study, {"seed": 0})
    assert record.study.user_attrs["fingerprint"]["seeds"] == 3  # names its full runs


def watched(path: Path, calls: Counter[str]) -> optuna.Study:
    """A study on SQLite, with its transactions that write and its statements counted."""
    storage = open_storage(f"sqlite:///{path / 'study.db'}")
    writing: set[int] = set()

    def execute(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        verb = statement.split()[0]
        calls[verb] += 1
        if verb in ("INSERT", "UPDATE", "DELETE"):
            writing.add(id(connection))

    def commit(connection: Any) -> None:
        calls["transactions"] += id(connection) in writing
        writing.discard(id(connection))

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", execute)
    sqlalchemy.event.listen(storage.engine, "commit", commit)
    return open_study(storage, "s")


def test_what_a_trial_costs_in_the_database_does_not_grow_with_the_trials(
    tmp_path: Path, space: Space, record_on: RecordOn, result_of: ResultOf
) -> None:
    calls: Counter[str] = Counter()
    rungs = Rungs((100, 200), 2)
    study = watched(tmp_path, calls)
    record = record_on(study, space, sampler=SamplerSettings("random"), rungs=rungs)

    def cost(step: Callable[[], Any]) -> Counter[str]:
        before = Counter(calls)
        step()
        return calls - before

    def one_trial() -> list[Counter[str]]:
        costs = [cost(lambda: numbers.append(start(record)))]
        number, kls = numbers[-1], {100: 1 / len(numbers), 200: 1 / len(numbers)}
        for end in (1, 2):
            result = result_of(dict(list(kls.items())[:end]))
            costs.append(cost(lambda result=result: record.report(number, result)))  # type: ignore[misc]
        return costs

    numbers: list[int] = []
    one_trial()  # reads what there is
    first = one_trial()
    for _ in range(10):
        one_trial()
    ended = [cost(lambda: record.complete(numbers[1], 1.0, sequences=[1.0] * 8))]
    for number in numbers[2:8]:
        record.complete(number, 1.0, sequences=[1.0] * 8)
    assert one_trial() == first
    ended.append(cost(lambda: record.complete(numbers[-1], 1.0, sequences=[1.0] * 8)))
    assert ended[0] == ended[1]
    assert [found["transactions"] for found in first] == [1, 1, 1]
    assert ended[0]["transactions"] == 2
    assert all(found["INSERT"] >= 2 for found in first), "the counter counts"


def test_an_end_that_was_stored_but_not_noted_is_kept(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come at any moment."""
    number = start(record)

    def stored_then_interrupted(trial: int, *given: Any) -> None:
        optuna.Study.tell(record.study, trial, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(record.study, "tell", stored_then_interrupted)
        with pytest.raises(KeyboardInterrupt):
            record.complete(number, 1.0)
    record.queue.release()
    assert states(record) == ["COMPLETE"]


def test_trials_of_other_drivers_are_seen(
    study: optuna.Study, space: Space, record_on: RecordOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Coordination, "shared", True)
    monkeypatch.setattr("search.database.coordination.drivers", lambda study: dict.fromkeys("ab"))
    first, second = (
        record_on(study, space, coordination=Coordination(study, None, token=name)) for name in "ab"
    )
    assert not first.trials() and not second.trials()
    number = start(first)
    assert states(second) == ["RUNNING"], "it has none of its own to look after"
    assert start(second) != number
    first.complete(number, 1.0)
    monkeypatch.setattr(trial_queue, "FRESH_SECONDS", 1e9)
    assert states(second) == ["RUNNING", "RUNNING"]
    monkeypatch.setattr(trial_queue, "FRESH_SECONDS", 0.0)
    assert states(second) == ["COMPLETE", "RUNNING"]
    monkeypatch.setattr(trial_queue, "FRESH_SECONDS", 1e9)
    architectures = {str(trial.user_attrs["architecture"]) for trial in first.trials()}
    assert len(architectures) == 2
    start(first)
    start(second)
    assert second.finished() == 1
    assert len({str(trial.user_attrs["architecture"]) for trial in study.trials}) == 4
