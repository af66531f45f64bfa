"""Plain lines: what a command says in a pipe, in a file or in CI, never silent for long."""

import math
import threading
import time
from collections.abc import Callable

from common.progress import Facts
from common.terminal.board import Board

SILENCE = 8.0
"""Seconds without a line after which one says what runs."""
LOOK = 0.5
"""Seconds between two looks at how long it has been silent."""


class PlainLines:
    """Lines with the time before them, and one about what runs where there was none for a while."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], str]):
        """`write` takes whole lines, `clock` gives the time that is put before each."""
        self._write, self._clock = write, clock
        self._board, self._lock = Board(), threading.Lock()
        self._said = math.inf
        """When the last line was; nothing breaks the silence of what has said and told nothing."""
        self._over = threading.Event()
        self._unheard: SystemExit | None = None
        """What ends the command, where nobody reads its lines any more."""
        self._watch = threading.Thread(target=self._break_silence, daemon=True, name="lines")
        self._watch.start()

    def line(self, text: str, facts: Facts | None = None) -> None:
        """Say a line, and take up what it tells."""
        with self._lock:
            if facts:
                self._board.take(facts)
            self._say(text)
        if self._unheard:
            raise self._unheard

    def take(self, facts: Facts) -> None:
        """Take up what is told."""
        with self._lock:
            self._board.take(facts)
            self._said = min(self._said, time.monotonic())

    def close(self) -> None:
        """Say nothing by itself any more."""
        self._over.set()
        self._watch.join()

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._write(f"[{self._clock()}] {text}")

    def _break_silence(self) -> None:
        while not self._over.wait(LOOK):
            with self._lock:
                if time.monotonic() - self._said < SILENCE:
                    continue
                try:
                    self._say(self._board.line() or "at work")
                except SystemExit as problem:  # which would end this thread alone
                    self._unheard = problem
                    return
