"""Live view: lines that scroll, and below them one view of what runs now, on a terminal."""

import threading
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.progress import Facts
from common.terminal.board import Board

PER_SECOND = 2.0
"""Times that the view is drawn."""
NARROW = 60
"""Columns below which there is no bar."""
LABEL = "bold"
WARNINGS = ("warning:", "error:")


class SteadyConsole(Console):
    """Console that leaves the cursor alone, which a process that is killed could not show again."""

    def show_cursor(self, show: bool = True) -> bool:
        """False: it is not controlled."""
        return False


class LiveView:
    """One view at the foot of a terminal, which goes when it is closed."""

    def __init__(self, stream: TextIO, clock: Callable[[], str]):
        """`clock` gives the time that is put before lines."""
        self._console = SteadyConsole(file=stream, highlight=False)
        self._clock, self._lock = clock, threading.RLock()
        self._board = Board()
        self._live: Live | None = None

    def line(self, text: str, facts: Facts | None = None) -> None:
        """Print a line above the view; one that only tells how far a run is changes the view."""
        if facts is not None:
            self.take(facts)
            if "at" in facts:
                return
        style = "yellow" if text.startswith(WARNINGS) else ""
        with self._lock:
            line = Text.assemble((f"[{self._clock()}] ", "dim"), (text, style))
            self._console.print(line, soft_wrap=True)

    def take(self, facts: Facts) -> None:
        """Take up what is told, and show it from the first fact on."""
        with self._lock:
            self._board.take(facts)
            if self._live is None:
                self._live = Live(
                    get_renderable=self._drawn,
                    console=self._console,
                    refresh_per_second=PER_SECOND,
                    transient=True,
                )
                self._live.start()

    def close(self) -> None:
        """Take the view away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _drawn(self) -> RenderableType:
        with self._lock:
            return drawn(self._board, self._clock(), width=self._console.width)


def drawn(board: Board, clock: str, *, width: int) -> RenderableType:
    """The view of a board: a rule with the stage, its amount, the runs, and what came of others."""
    facts = board.facts
    rule = Table.grid(expand=True, padding=(0, 1))
    rule.add_column(no_wrap=True, overflow="ellipsis")
    rule.add_column(justify="right", no_wrap=True)
    times = f"{clock} gone" + (f", {board.time_left}" if board.time_left else "")
    rule.add_row(Text(board.heading or "training", LABEL), Text(times, LABEL))
    rows: list[RenderableType] = [Text("\u2500" * width, "dim"), rule]
    amount = ", ".join(each for each in (board.amount, board.speed) if each)
    if "total" in facts and "done" in facts and width >= NARROW:
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1.0, facts["total"]), completed=facts["done"], width=width // 3)
        row.add_row(bar, Text(amount, no_wrap=True, overflow="ellipsis"))
        rows.append(row)
    elif amount:
        rows.append(Text(amount, no_wrap=True, overflow="ellipsis"))
    told = Table.grid(padding=(0, 2))
    told.add_column(style="dim", no_wrap=True)
    told.add_column(no_wrap=True, overflow="ellipsis")
    for label, text in (("best", facts.get("best")), ("ended", facts.get("ended"))):
        if text:
            told.add_row(label, text)
    for name, pace in board.runs.items():
        told.add_row("runs", f"{name}  {pace or 'begins'}".strip())
    rows.append(told)
    return Group(*rows)
