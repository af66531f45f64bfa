"""Ctrl-C and SIGTERM as one exception, so that a study is always left in order; and workers that
end with the process that started them."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from common.errors import Interrupted

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


def parent_watch() -> Callable[[], None]:
    """A check that exits if the parent process has died since, since a new worker may own the same
    files."""
    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            raise SystemExit("the process that started this run is gone")

    return check


def quiet_exits() -> None:
    """Have an exit that cannot be raised go unreported in this process from now on.

    Ray ends its workers by SIGTERM, whose handler raises SystemExit wherever the process happens to
    be. In a finalizer or in the callback of a weak reference Python has nobody to raise it to, and
    would print a traceback ("Exception ignored in") among the lines of the driver.
    """
    report = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, SystemExit):
            report(unraisable)

    sys.unraisablehook = hook
