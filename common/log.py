"""Progress lines of the commands: ordinary log records, shown with the minutes since the start.

Every module logs to a logger of its own name, as in `logging.getLogger(__name__)`, so that a
program that embeds Espalier can send the lines where it likes. The commands and `run_search` print
them on standard output where no handler is set for them.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator

PACKAGES = ("common", "pruning", "distill", "workspace", "search", "experiments")
"""Loggers that the modules of the project lie below."""


class LineHandler(logging.Handler):
    """Hands the message of each record to a function that takes lines."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over the message; what the function raises ends the work."""
        self.write(record.getMessage())


@contextlib.contextmanager
def lines_to(write: Callable[[str], None]) -> Iterator[None]:
    """Hand the project's progress lines to `write` inside.

    Does nothing where a handler for them is set already: then the caller decides. They go nowhere
    else meanwhile, since libraries set up the root logger as they are imported, and would have
    every line come twice.
    """
    loggers = [logging.getLogger(name) for name in PACKAGES]
    if any(logger.handlers for logger in loggers):
        yield
        return
    handler = LineHandler(write)
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextlib.contextmanager
def lines_beside(write: Callable[[str], None]) -> Iterator[None]:
    """Hand the project's progress lines to `write` inside, beside whatever else takes them."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    handler = LineHandler(write)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def timed_lines() -> Iterator[None]:
    """Print the project's progress lines inside as `[mm:ss] message`, with the time since now."""
    started = time.monotonic()

    def show(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        _print(f"[{minutes:02}:{seconds:02}] {line}")

    with lines_to(show):
        yield


@contextlib.contextmanager
def plain_lines() -> Iterator[None]:
    """Print the project's progress lines inside as they are."""
    with lines_to(_print):
        yield


def _print(line: str) -> None:
    """Print on the standard output of this moment.

    Where nobody reads it any more, as behind `| head`, the command ends without more words.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
