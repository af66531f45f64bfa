"""Ctrl-C and SIGTERM as one exception, so that a study is always left in order."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from search.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Inside, the first signal raises Interrupted; more of them are ignored while things close.

    What is given is empty until a signal came.

    Ray turns what a handler raises inside its own calls into other exceptions; once a signal came,
    whatever leaves this block is the interruption.
    """
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        received.append(signum)
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in SIGNALS}
    try:
        yield received
    except BaseException as problem:
        if received and not isinstance(problem, Interrupted):
            raise Interrupted(received[0]) from problem
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
