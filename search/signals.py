"""Ctrl-C and SIGTERM as one exception, so that a study is always left in order."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from search.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, the first signal raises Interrupted; more of them are ignored while things close."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
