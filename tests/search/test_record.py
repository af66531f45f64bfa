"""The record: nothing finished is lost, nothing stays RUNNING, a continuation keeps its origin."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import SearchError
from search.halving import origin_of
from search.record import Record, check_fingerprint
from search.space import Space

RecordOn = Callable[..., Record]
ResultOf = Callable[..., dict[str, Any]]


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
    assert record.reclaim() == 1
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
    assert record.reclaim() == 1, "a second interruption keeps the first origin"
    assert record.trials()[2].user_attrs["origin"] == 0
    assert record.trials()[2].user_attrs["interruptions"] == 2


def test_given_up_after_max_retries(record: Record) -> None:
    for taken in (1, 1, 0):
        start(record)
        record.live.clear()
        assert record.reclaim() == taken
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
        target = record.study if when == "before it was told" else record.study._storage
        patched.setattr(target, "tell" if target is record.study else "set_trial_user_attr", die)
        with pytest.raises(KeyboardInterrupt):
            record.reclaim()
    record.reclaim()
    assert states(record) == ["FAIL", "WAITING"]


def test_release_leaves_none_running(record: Record) -> None:
    for _ in range(3):
        start(record)
    record.complete(1, 1.0)
    record.release()
    assert states(record) == ["FAIL", "COMPLETE", "FAIL", "WAITING", "WAITING"]
    assert not record.live
    assert record.reclaim() == 0


def test_stops_by_the_user_cost_no_retry(record: Record) -> None:
    for _ in range(record.max_retries + 2):
        start(record)
        record.release()
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
    record.reclaim()
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
    record = record_on(study, space)
    assert len(record.add_anchors()) == 3
    wanted = {a for a in space.anchors().values() if a is not None}
    start(record)
    record.live.clear()
    again = record_on(study, space)
    again.reclaim()
    again.add_anchors()
    for _ in wanted:
        assert again.live[start(again)].user_attrs["anchor"]
    assert again.tried() == wanted
    assert "anchor" not in again.live[start(again)].user_attrs


def test_fewer_trials_than_anchors_leave_none_waiting(
    space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    record = record_on(study, space)
    record.add_anchors()
    record.complete(start(record), 1.0)
    assert states(record) == ["COMPLETE"]


def test_anchors_of_one_shape_are_one_trial(
    study: optuna.Study, record_on: RecordOn, sizes: dict[str, Any], space_of: Callable[..., Space]
) -> None:
    from transformers import LlamaConfig

    record = record_on(study, space_of(LlamaConfig(**sizes), 1.0, 0.0))
    assert len(record.add_anchors()) == 3
    start(record)
    assert record.next_trial() is None
    assert record.exhausted


def test_a_study_with_trials_keeps_its_fingerprint(record: Record) -> None:
    parts = {"seed": 0, "budget": [1, 2]}
    check_fingerprint(record.study, parts)
    check_fingerprint(record.study, {"seed": 1, "budget": [1, 2]})  # nothing was tried yet
    start(record)
    check_fingerprint(record.study, {"seed": 1, "budget": [1, 2]})
    with pytest.raises(SearchError, match=r"seed \(was 1, is 0\)") as caught:
        check_fingerprint(record.study, parts)
    assert "budget" not in str(caught.value)
