"""Stages of a study, and how long all of them still take."""

import logging
import time

import pytest

from search.overview import FULL_RUNS, PREPARATION, REPORT, TRIALS, StudyClock, stage_of

PLANNED = {PREPARATION: 30.0, TRIALS: 120.0, FULL_RUNS: 400.0, REPORT: 50.0}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_is_that_of_all_stages(now: list[float]) -> None:
    clock = StudyClock(PLANNED)
    clock.begin(PREPARATION)
    now[0] += 10
    assert clock.left() == 20 + 120 + 400 + 50
    now[0] += 100
    assert clock.left() == 570, "a stage that takes longer takes nothing of the others"
    clock.begin(TRIALS)
    now[0] += 119.5
    assert clock.left(0.5) == 450.5, "the last trial is not the end"
    assert clock.words(0.5) == "; about 8 min left in all"
    clock.expect(FULL_RUNS, 40.0)
    clock.begin(TRIALS)
    assert clock.left(0.5) == 90.5


def test_nothing_is_promised_of_what_is_not_known(now: list[float]) -> None:
    clock = StudyClock({PREPARATION: 30.0, TRIALS: None, REPORT: 50.0})
    assert clock.words() == ""
    clock.begin(PREPARATION)
    assert clock.left() is None and clock.words() == ""
    clock.begin(TRIALS)
    assert clock.left() is None and clock.left(10.0) == 60.0


def test_the_end_of_the_time_is_the_end_of_all(now: list[float]) -> None:
    clock = StudyClock(PLANNED, deadline=280.0)
    clock.begin(PREPARATION)
    assert clock.words() == "; about 3 min left in all"
    now[0] += 200
    assert clock.words() == "", "nothing is promised once it is over"


def test_a_stage_says_its_place(caplog: pytest.LogCaptureFixture, now: list[float]) -> None:
    caplog.set_level(logging.INFO)
    names = [stage_of(kind, member) for member in ("0.7", "0.5") for kind in (TRIALS, REPORT)]
    clock = StudyClock(dict.fromkeys(names, 60.0))
    clock.begin(names[2])
    clock.begin(names[2])
    assert caplog.messages == ["stage 3 of 4: trials of member 0.5; about 2 min left in all"]


def test_what_was_guessed_is_corrected_by_the_stage_that_is_timed(now: list[float]) -> None:
    clock = StudyClock(PLANNED)
    clock.begin(PREPARATION)
    now[0] += 4
    assert clock.words(6.0) == "; about 3 min left in all", "it takes 10 s where 30 were planned"
    assert clock.left(6.0) == pytest.approx(6 + (120 + 400 + 50) / 3)
    clock.expect(TRIALS, 90.0)
    assert clock.left(6.0) == pytest.approx(6 + 90 + 450 / 3), "what was timed stays"
    clock.begin(TRIALS)
    now[0] += 60
    clock.tell(180.0)
    assert clock.left(180.0) == pytest.approx(180 + 450 * 2), "trials tell it anew"


def test_a_stage_that_was_partly_done_before_corrects_nothing(now: list[float]) -> None:
    clock = StudyClock(PLANNED, partly_done=[PREPARATION])
    clock.begin(PREPARATION)
    clock.tell(1.0)
    assert clock.left(1.0) == 1 + 120 + 400 + 50
