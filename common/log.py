"""Progress lines of the commands: ordinary log records, shown with the time since the start.

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
from typing import TextIO

from common.progress import TELLING
from common.terminal import Display, display

PACKAGES = ("common", "pruning", "distill", "workspace", "search", "experiments")
"""Loggers that the modules of the project lie below."""


class LineHandler(logging.Handler):
    """Hands the message of each record to a function that takes lines, and facts to a display."""

    def __init__(self, write: Callable[[str], None], shown: Display | None = None) -> None:
        super().__init__(logging.INFO if shown is None else TELLING)
        self.write, self.shown = write, shown

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over the message; what the function raises ends the work."""
        if self.shown is None:
            self.write(record.getMessage())
            return
        facts = getattr(record, "facts", None)
        if record.levelno >= logging.INFO:
            self.shown.line(record.getMessage(), facts)
        elif facts is not None:
            self.shown.take(facts)


@contextlib.contextmanager
def lines_to(write: Callable[[str], None]) -> Iterator[None]:
    """Hand the project's progress lines to `write` inside.

    Does nothing where a handler for them is set already: then the caller decides. They go nowhere
    else meanwhile, since libraries set up the root logger as they are imported, and would have
    every line come twice.
    """
    with _handled(lambda: LineHandler(write)):
        yield


@contextlib.contextmanager
def _handled(make: Callable[[], LineHandler]) -> Iterator[None]:
    """Records of the project go to the handler that `make` gives, where they had none before."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    if any(logger.handlers for logger in loggers):
        yield
        return
    handler = make()
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(handler.level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        if handler.shown is not None:
            handler.shown.close()


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
    """Show the project's progress lines inside as `[mm:ss] message`, with the time since now.

    On a terminal one live view below them says what runs; elsewhere a line does where there was
    none for ten seconds.
    """
    started = time.monotonic()

    def clock() -> str:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"

    stream = sys.stdout  # of now: what runs may turn aside what libraries print

    def write(line: str) -> None:
        _print(line, stream)

    with _handled(lambda: LineHandler(write, display(write, clock))):
        yield


@contextlib.contextmanager
def plain_lines() -> Iterator[None]:
    """Print the project's progress lines inside as they are."""
    with lines_to(_print):
        yield


def _print(line: str, stream: TextIO | None = None) -> None:
    """Print on the stream, by default the standard output of this moment.

    Where nobody reads it any more, as behind `| head`, the command ends without more words.
    """
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())
        raise SystemExit(1) from None
