"""Pace of long work, with the clock in the test's hand."""

import time

import pytest

from common.progress import Progress, Throttle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_an_earlier_start_did_tells_nothing_of_the_speed(clock: list[float]) -> None:
    progress = Progress(1000, done=400)
    clock[0] += 10
    assert progress.speed(500) == pytest.approx(10)
    assert progress.left(500) == pytest.approx(50)
    assert progress.left(1000) == progress.left(1200) == 0


def test_before_the_first_unit_it_counts_as_done(clock: list[float]) -> None:
    progress = Progress(10, done=4)
    clock[0] += 5
    assert progress.left(4) == 30
    assert progress.left(5) == 25


def test_a_throttle_is_true_once_per_pause(clock: list[float]) -> None:
    due = Throttle(10)
    clock[0] += 9
    assert not due()
    clock[0] += 1
    assert due()
    assert not due()
