"""SIGTERM and Ctrl-C become one exception, and the handlers are put back; workers end quietly."""

import os
import signal
import sys

import pytest

from common.errors import Interrupted
from common.signals import SIGNALS, interruptible, quiet_exits


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_raises_interrupted(signum: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    closed = False
    with pytest.raises(Interrupted) as caught, interruptible():
        try:
            os.kill(os.getpid(), signum)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb the closing
            closed = True
    assert caught.value.signum == signum
    assert closed
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert not isinstance(caught.value, Exception), "no `except Exception` swallows it"


class Ends:
    """Raises in its finalizer, where nobody can catch it."""

    def __init__(self, problem: BaseException):
        self.problem = problem

    def __del__(self) -> None:
        raise self.problem


def test_an_exit_in_a_finalizer_is_not_reported_and_all_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(what.exc_value))
    quiet_exits()
    mistake = ValueError("a mistake of ours")
    for problem in (SystemExit(1), mistake):
        Ends(problem)
    assert reported == [mistake]
