"""Rows of a file, one at a time, in every format that has rows.

Not by the builders of `datasets`, which give every row of a file the same fields, filled with null
where a row has them not (chat templates and tool calls would show them), take names of files for
patterns, and refuse a file for one line that is no JSON or one column of a type that they do not
know. Which files a data set has is theirs to say; tables are read by pyarrow, as they do.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from common.errors import DistillError
from distill.data.files.formats import (
    BROKEN,
    CSV,
    JSON,
    PARQUET,
    TSV,
    CorpusFile,
    Reading,
    raw_file,
)

PEEKED_BYTES = 65_536
VALUE_CHARACTERS = 1 << 20
"""Read at a time of JSON that is not one value a line."""
CUT_OFF = 16
"""Characters before the end of what was read in which a JSON error may be that the end is."""
BLANKS = re.compile(r"\s*")
FIELDS = ("text", "messages", "conversations", "tools", "functions", "system")
"""Fields that a document may come from."""
TABLE_ROWS = 1000
"""Rows of a table in memory at a time."""
_JSON_START = re.compile(rb"\s*(\[\s*)?\{\s*\"[^\"\n]{1,80}\"\s*:")


@dataclass(frozen=True)
class Row:
    """A row as its file has it."""

    value: Any
    """Its JSON, or the text of a file that is one row."""
    place: str
    """Where it stands, for messages."""


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be used."""

    place: str
    """Where it stands, for messages."""
    reason: str
    """Why it cannot be used; follows the place and a colon."""


def rows_of(
    file: CorpusFile, reading: Reading, column: str | None = None
) -> Iterator[Row | Unusable]:
    """The rows of a file whose format has rows; `column` is the field that a text is read from.

    Raises DistillError where the file cannot be read.
    """
    if file.size == 0 and "://" not in file.path:
        return
    try:
        if file.format == JSON:
            with reading.opened(file) as stream:
                rows = _json(io.BufferedReader(stream, PEEKED_BYTES), file)
                yield from _unwrapped(rows, file, column)
        elif file.format in (CSV, TSV):
            with reading.opened(file) as stream:
                yield from _separated(stream, file)
        else:
            yield from _table(file, column)
    except UnicodeDecodeError as problem:
        raise DistillError(f"the corpus {file.path} cannot be read: it is not UTF-8 text") from (
            problem
        )
    except BROKEN as problem:
        raise unreadable(file, problem) from problem


def unreadable(file: CorpusFile, problem: Exception) -> DistillError:
    """That a file cannot be read, with the reason."""
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DistillError(f"the corpus {file.path} cannot be read: {reason}")


def _json(stream: "io.BufferedReader[Any]", file: CorpusFile) -> Iterator[Row | Unusable]:
    """JSON lines, a list of objects, or objects one after the other, however they are indented."""
    start = stream.peek(PEEKED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    first, line_end, rest = start.partition(b"\n")
    if start[:1] == b"[":
        lines = bool(rest.strip()) and not _is_open(first)
    else:  # what is no JSON at all is lines, each of which cannot be used
        lines = start[:1] != b"{" or not line_end or not _is_open(first)
    if lines:
        yield from _lines(stream, file)
    else:
        yield from _values(io.TextIOWrapper(stream, "utf-8-sig"), file)


def _is_open(line: bytes) -> bool:
    """Whether a line is the beginning of JSON that goes on in the next."""
    text = line.decode(errors="replace").rstrip()
    try:
        json.loads(text)
    except json.JSONDecodeError as problem:
        unended = problem.msg.startswith(("Expecting", "Unterminated"))
        return unended and problem.pos >= len(text)
    except (ValueError, RecursionError):
        pass
    return False


def _unwrapped(
    rows: Iterator[Row | Unusable], file: CorpusFile, column: str | None
) -> Iterator[Row | Unusable]:
    """Of a file that is one object with one list of objects in it, the objects of that list."""
    first, second = next(rows, None), next(rows, None)
    known = (*FIELDS, column) if column else FIELDS
    if isinstance(first, Row) and second is None and isinstance(first.value, dict):
        lists = [each for each in first.value.values() if isinstance(each, list) and each]
        tables = [each for each in lists if all(isinstance(row, dict) for row in each)]
        if len(tables) == 1 and not any(name in first.value for name in known):
            for number, row in enumerate(tables[0], 1):
                yield Row(row, f"row {number} of {file.name}")
            return
    yield from chain([each for each in (first, second) if each is not None], rows)


def _lines(stream: Iterable[bytes], file: CorpusFile) -> Iterator[Row | Unusable]:
    for number, line in enumerate(stream, 1):
        place = f"line {number} of {file.name}"
        written = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not written.strip():
            continue
        try:
            value = json.loads(written.decode())
        except UnicodeDecodeError:
            yield Unusable(place, "it is not UTF-8 text")
        except ValueError as problem:  # also for a number of too many digits
            yield Unusable(place, f"it is not JSON ({getattr(problem, 'msg', problem)})")
        except RecursionError:
            yield Unusable(place, "it is JSON that is nested too deeply")
        else:
            yield Row(value, place)


def _values(text: IO[str], file: CorpusFile) -> Iterator[Row | Unusable]:
    """The objects of lists, or those that follow each other; never more than one in memory."""
    for number, value in enumerate(_decoded(text, file), 1):
        yield Row(value, f"row {number} of {file.name}")


def _decoded(text: IO[str], file: CorpusFile) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    held, more = text.read(VALUE_CHARACTERS), VALUE_CHARACTERS
    at = _past_blanks(held, 0)
    listed = False
    while True:
        at = _past_blanks(held, at)
        mark = held[at : at + 1]
        if (listed and mark in ("]", ",")) or (not listed and mark == "["):
            listed = mark != "]"
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(held, at)
        except json.JSONDecodeError as problem:
            cut = problem.msg.startswith("Unterminated") or problem.pos >= len(held) - CUT_OFF
            read = text.read(more) if cut else ""
            if not read:
                if at == len(held) and not listed:
                    return
                raise DistillError(
                    f"the corpus {file.path} cannot be read: it is not JSON "
                    f"({'it is cut off' if cut else problem.msg})"
                ) from problem
            held, at, more = held[at:] + read, 0, 2 * more
            continue
        except (ValueError, RecursionError) as problem:
            raise DistillError(
                f"the corpus {file.path} cannot be read: its JSON has a number of too many digits "
                "or is nested too deeply"
            ) from problem
        yield value
        more = VALUE_CHARACTERS
        if len(held) - at < VALUE_CHARACTERS // 4:
            held, at = held[at:] + text.read(VALUE_CHARACTERS), 0


def _past_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    return found.end() if found else at


def _separated(stream: Any, file: CorpusFile) -> Iterator[Row | Unusable]:
    """Rows of a CSV or TSV file, whose first row names the columns."""
    csv.field_size_limit(sys.maxsize)
    lines = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    first = next((line for line in lines if line.strip()), "")
    delimiter = "\t" if file.format == TSV else _delimiter(first)
    if first.lower().startswith("sep="):  # Excel's own first line
        delimiter, first = first[4:5], next(lines, "")
    read: list[str] = []
    rows = csv.reader(_noting(chain([first], lines), read), delimiter=delimiter, strict=True)
    names = next(rows, [])
    while True:
        place = f"line {rows.line_num + 1} of {file.name}"
        read.clear()
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as problem:
            swallowed = _holds_rows("".join(read), delimiter, len(names))
            if swallowed or "unexpected end" in str(problem):
                raise _unclosed(file, place) from problem
            yield Unusable(place, str(problem))
            continue
        if any(_holds_rows(value, delimiter, len(names)) for value in values):
            raise _unclosed(file, place)
        if values and len(values) != len(names):
            reason = f"it has {len(values)} columns, and the first row names {len(names)}"
            yield Unusable(place, f"{reason}; is a text not in quotes?")
        elif values:
            yield Row(dict(zip(names, values, strict=True)), place)


def _noting(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _unclosed(file: CorpusFile, place: str) -> DistillError:
    return DistillError(
        f"the corpus {file.path} cannot be read: a quote is never closed, or swallows the rows "
        f"behind it ({place}); write texts in quotes, and quotes in them twice"
    )


def _holds_rows(value: str, delimiter: str, columns: int) -> bool:
    """Whether a cell has whole rows in it, as it does where a text begins with a lone quote."""
    inside = value.split("\n")[1:-1]
    if columns < 2 or len(inside) < 3:
        return False
    return sum(line.count(delimiter) == columns - 1 for line in inside) > 0.9 * len(inside)


def _delimiter(header: str) -> str:
    unquoted = re.sub('"[^"]*"', "", header)
    counts = {mark: unquoted.count(mark) for mark in ",;\t"}
    return "," if counts[","] else max(counts, key=lambda mark: counts[mark])


def _table(file: CorpusFile, column: str | None) -> Iterator[Row]:
    import pyarrow  # slow to import; trial workers import this package

    if file.compression:
        raise DistillError(
            f"the corpus {file.path} cannot be read: such tables are compressed inside; "
            f"decompress it ({file.compression})"
        )
    try:
        with raw_file(file.path) as raw:
            batches = _parquet(raw, column) if file.format == PARQUET else _arrow(raw)
            number = 0
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield Row(row, f"row {number} of {file.name}")
    except (pyarrow.ArrowException, ValueError) as problem:
        raise unreadable(file, problem) from problem


def _parquet(raw: Any, column: str | None) -> Iterator[Any]:
    """Of the columns that a document may come from, or all of them where there is none."""
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(raw)
    wanted = (*FIELDS, column) if column else FIELDS
    columns = [name for name in table.schema_arrow.names if name in wanted]
    found = (column or "text") in columns or bool(set(columns) & {"messages", "conversations"})
    return iter(table.iter_batches(TABLE_ROWS, columns=columns if found else None))


def _arrow(raw: Any) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, ipc

    try:
        batches = iter(ipc.open_stream(raw))
    except ArrowInvalid:
        table = ipc.open_file(raw)
        batches = (table.get_batch(number) for number in range(table.num_record_batches))
    for batch in batches:
        for start in range(0, batch.num_rows, TABLE_ROWS):
            yield batch.slice(start, TABLE_ROWS)


def holds_json_rows(file: CorpusFile) -> bool:
    """Whether a file begins as JSON objects do, or a list of them."""
    try:
        with Reading().opened(file) as stream:
            start = stream.read(1024)
    except BROKEN:
        return False
    return _JSON_START.match(start.removeprefix(b"\xef\xbb\xbf")) is not None
