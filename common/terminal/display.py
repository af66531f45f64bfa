"""Display: the live view where there is a terminal, plain lines elsewhere."""

import os
import sys
from collections.abc import Callable
from typing import Protocol

from common.progress import Facts
from common.terminal.plain import PlainLines


class Display(Protocol):
    """Shows lines and what runs."""

    def line(self, text: str, facts: Facts | None = None) -> None:
        """Show a line, and take up what it tells."""

    def take(self, facts: Facts) -> None:
        """Take up what is told."""

    def close(self) -> None:
        """Nothing more is shown."""


def display(write: Callable[[str], None], clock: Callable[[], str]) -> Display:
    """The display for the standard output of this moment.

    `write` takes plain lines, `clock` gives the time that is put before each line. A dumb terminal
    and CI, whose logs are kept, get plain lines too.
    """
    able = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")
    if able and sys.stdout.isatty():
        from common.terminal.live import LiveView  # which takes a moment, and pipes do without

        return LiveView(sys.stdout, clock)
    return PlainLines(write, clock)
