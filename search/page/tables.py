"""Tables of the page: cells with what a screen reader needs to know of them."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?%| \[.*\]( \*)?|x)?")
EMPTY = "–"
"""In a cell that has nothing to say."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first cell of a row is its name."""

    name: str
    """Of its part of the page, once there."""
    caption: str
    """What it is of."""
    header: Sequence[str]
    """Name of each column."""
    rows: Sequence[Sequence[str]]
    """Cells, one for each column."""
    sortable: bool = False
    """Whether a reader may want another order."""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column has numbers alone, which stand to the right."""
        return [
            bool(cells) and all(map(NUMBER.fullmatch, cells))
            for cells in (
                [row[column] for row in self.rows if row[column] not in ("", EMPTY)]
                for column in range(len(self.header))
            )
        ]


@dataclass(frozen=True)
class Group:
    """Rows of a table that belong together."""

    name: str
    """What they are of."""
    rows: Sequence[Sequence[str]]
    """Cells, the first the name of the row."""


def number(value: float | None, digits: int = 4) -> str:
    """With so many digits after the point; a dash where there is none."""
    return EMPTY if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """With commas; a dash where there is none."""
    return EMPTY if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """As a share of 100; a dash where there is none."""
    return EMPTY if value is None else f"{value:.1%}"


def duration(seconds: float | None) -> str:
    """Rounded to the digits that say something."""
    if seconds is None:
        return EMPTY
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def csv_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
