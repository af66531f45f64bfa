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
MOST_RUNS = 8
"""Runs that are shown, each in a line."""
RULE, LABEL = 40, 7
"""Columns of the rule above it, and of the labels."""
SHOWN = {"best": "best", "ended": "ended"}
"""Label of a fact -> its name."""
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
            if "at" in facts and "said" not in facts:
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
    """The view of a board: the stage with its times, its amount, the best, the others, the runs.

    Lines are no longer than what they say, so that a narrower terminal wraps few of them.
    """
    times = f"{clock} gone" + (f", {board.time_left}" if board.time_left else "")
    rows: list[RenderableType] = [Text("\u2500" * min(width, RULE), "dim")]
    rows.append(_row(Text(board.heading or "training", "bold"), Text(f"  {times}")))
    amount = Text(", ".join(each for each in (board.amount, board.speed) if each))
    share = board.share
    if share is not None and width >= NARROW:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=width // 3), _row(amount))
        rows.append(bar)
    elif amount:
        rows.append(_row(amount))
    told = [(label, board.facts.get(name)) for label, name in SHOWN.items()]
    runs = [f"{name}  {pace or 'begins'}" for name, pace in board.runs.items()]
    told += [("runs", run) for run in runs[:MOST_RUNS]]
    more = len(runs) - MOST_RUNS
    told += [("", f"and {more} more")] if more > 0 else []
    rows += [
        _row(Text(f"{label:<{LABEL}}", "dim"), Text(f"{text}")) for label, text in told if text
    ]
    return Group(*rows)


def _row(*parts: Text) -> Text:
    """Texts in one line, which is cut where the terminal ends."""
    row = Text.assemble(*parts)
    row.no_wrap, row.overflow = True, "ellipsis"
    return row
