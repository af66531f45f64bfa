"""SIGTERM and Ctrl-C become one exception, and the handlers are put back."""

import os
import signal

import pytest

from common.errors import Interrupted
from common.signals import SIGNALS, interruptible


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
