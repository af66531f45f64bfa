"""Progress lines of the commands: ordinary log records, shown with the minutes since the start.

Every module logs to a logger of its own name, as in `logging.getLogger(__name__)`, so that a
program that embeds Espalier can send the lines where it likes. The commands, and `run_search` where
nobody listens, print them on standard output.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

PACKAGES = ("common", "pruning", "distill", "workspace", "search", "experiments")
"""Loggers that the modules of the project lie below."""


class TimedLines(logging.Handler):
    """Prints each record as `[mm:ss] message`, on the standard output of that moment."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record with the minutes and seconds since the handler was made."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"[{minutes:02}:{seconds:02}] {record.getMessage()}", file=sys.stdout, flush=True)


@contextlib.contextmanager
def timed_lines() -> Iterator[None]:
    """Show the project's progress lines inside, with the time since now.

    Does nothing where a handler for them is set already: then the caller decides.
    """
    loggers = [logging.getLogger(name) for name in PACKAGES]
    if any(logger.handlers for logger in loggers):
        yield
        return
    handler = TimedLines()
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
