"""Tables of a plan, as text and as Markdown at once."""

from collections.abc import Mapping, Sequence

from common.progress import duration
from search.needs.memory import SHOWN, MemoryParts
from search.needs.work import Work, total

GB = 1e9


def shown_time(seconds: float) -> str:
    """An estimate in words, rounded so that nothing is promised to the second."""
    return f"about {duration(seconds)}"


def work_table(work: Sequence[Work]) -> list[str]:
    """A row for each part of the work, and one for all of it."""
    header = ["what runs", "runs", "tokens", "training FLOPs", "forward FLOPs", "time"]
    return table([header, *(_work_row(part) for part in [*work, total(work)])])


def _work_row(part: Work) -> list[str]:
    return [
        part.what,
        f"{part.runs:,}",
        f"{part.tokens:,.0f}",
        f"{part.training_flops:.3g}",
        f"{part.forward_flops:.3g}",
        "not known" if part.seconds is None else shown_time(part.seconds),
    ]


def memory_table(moments: Mapping[str, MemoryParts]) -> list[str]:
    """GB by part, a column for each moment; the last row is the sum."""
    names = [
        name for name in SHOWN.values() if any(name in each.shown for each in moments.values())
    ]
    rows = [["memory of a device, GB", *moments]]
    for name in names:
        rows.append([name, *(f"{each.shown.get(name, 0) / GB:,.2f}" for each in moments.values())])
    rows.append(["in all", *(f"{float(each.total) / GB:,.2f}" for each in moments.values())])
    return table(rows)


def disk_table(parts: Mapping[str, float]) -> list[str]:
    """GB by part, and their sum."""
    rows = [["disk, at most, GB", ""], *([name, _gb(size)] for name, size in parts.items())]
    return table([*rows, ["in all", _gb(sum(parts.values()))]])


def _gb(size: float) -> str:
    """In GB, to about three digits."""
    return f"{size / GB:,.3f}" if size < 10 * GB else f"{size / GB:,.1f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first row above a rule."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]
