"""Rows of a file, one at a time, in every format that has rows.

JSON and CSV are read here and not by `datasets`: that gives every row of a file the same fields,
filled with null where a row has them not, which chat templates and tool calls would show; and one
line that is no JSON would cost it the whole file. Parquet and Arrow, which are such tables, are
its job.
"""

import csv
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from distill.data.files import CSV, JSON, PARQUET, TSV, CorpusFile, Reading
from distill.errors import DistillError

PEEKED_BYTES = 65_536
VALUE_CHARACTERS = 1 << 20
"""Read at a time of JSON that is not one value a line."""
CUT_OFF = 16
"""Characters before the end of what was read in which a JSON error may be that the end is."""
BLANKS = re.compile(r"\s*")
HOLDERS = ("text", "messages", "conversations")


@dataclass(frozen=True)
class Row:
    """A row as its file has it."""

    value: Any
    place: str
    """Where it stands, for messages."""


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be used."""

    place: str
    reason: str


def rows_of(file: CorpusFile, reading: Reading) -> Iterator[Row | Unusable]:
    """The rows of a file whose format has rows. Raises DistillError where it cannot be read."""
    try:
        if file.format == JSON:
            with reading.opened(file) as stream:
                yield from _json(io.BufferedReader(stream, PEEKED_BYTES), file)
        elif file.format in (CSV, TSV):
            with reading.opened(file) as stream:
                yield from _separated(stream, file)
        else:
            yield from _table(file)
    except UnicodeDecodeError as problem:
        raise DistillError(f"the corpus {file.path} cannot be read: it is not UTF-8 text") from (
            problem
        )
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as problem:
        raise unreadable(file, problem) from problem


def unreadable(file: CorpusFile, problem: Exception) -> DistillError:
    """That a file cannot be read, with the reason."""
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DistillError(f"the corpus {file.path} cannot be read: {reason}")


def _json(stream: "io.BufferedReader[Any]", file: CorpusFile) -> Iterator[Row | Unusable]:
    """JSON lines, a list of objects, or objects one after the other, however they are indented."""
    start = stream.peek(PEEKED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    first, line_end, rest = start.partition(b"\n")
    whole = bool(line_end) or len(start) < PEEKED_BYTES // 2
    lines = _is_json(first) and bool(rest.strip())
    if start[:1] == b"{":
        lines = lines or not whole
    elif start[:1] != b"[":
        lines = True  # each of them is one that cannot be used
    if lines:
        yield from _lines(stream, file)
    else:
        yield from _values(io.TextIOWrapper(stream, "utf-8-sig"), file)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


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
        except json.JSONDecodeError as problem:
            yield Unusable(place, f"it is not JSON ({problem.msg})")
        except RecursionError:
            yield Unusable(place, "it is JSON that is nested too deeply")
        else:
            yield Row(value, place)


def _values(text: IO[str], file: CorpusFile) -> Iterator[Row | Unusable]:
    """The objects of a list, or those that follow each other; never more than one in memory.

    Of a file that is one object with a list of objects in it, the objects of that list.
    """
    number = 0
    for value in _decoded(text, file):
        inner = _held_list(value)
        for row in [value] if inner is None else inner:
            number += 1
            yield Row(row, f"row {number} of {file.name}")


def _held_list(value: Any) -> list[Any] | None:
    if not isinstance(value, dict) or any(name in value for name in HOLDERS):
        return None
    lists = [held for held in value.values() if isinstance(held, list) and held]
    objects = [held for held in lists if all(isinstance(each, dict) for each in held)]
    return objects[0] if len(objects) == 1 else None


def _decoded(text: IO[str], file: CorpusFile) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    held, more = text.read(VALUE_CHARACTERS), VALUE_CHARACTERS
    at = _past_blanks(held, 0)
    listed = held[at : at + 1] == "["
    at += listed
    while True:
        at = _past_blanks(held, at)
        if listed and held[at : at + 1] == ",":
            at = _past_blanks(held, at + 1)
        if listed and held[at : at + 1] == "]":
            return
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
        except RecursionError as problem:
            raise DistillError(
                f"the corpus {file.path} cannot be read: its JSON is nested too deeply"
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
    first = lines.readline()
    delimiter = "\t" if file.format == TSV else _delimiter(first)
    names = next(csv.reader([first], delimiter=delimiter), [])
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as problem:
            if "unexpected end" in str(problem):
                raise DistillError(
                    f"the corpus {file.path} cannot be read: a quote in it is never closed"
                ) from problem
            yield Unusable(f"line {rows.line_num + 1} of {file.name}", str(problem))
            continue
        place = f"line {rows.line_num + 1} of {file.name}"
        if len(values) > len(names):
            reason = f"it has {len(values)} columns, and the first row names {len(names)}"
            yield Unusable(place, f"{reason}; is a text with commas not in quotes?")
        elif values:
            yield Row(dict(zip(names, values, strict=False)), place)


def _delimiter(header: str) -> str:
    counts = {mark: header.count(mark) for mark in ",;\t"}
    return "," if counts[","] else max(counts, key=lambda mark: counts[mark])


def _table(file: CorpusFile) -> Iterator[Row]:
    from datasets import load_dataset  # slow to import; trial workers import this package

    builder = PARQUET if file.format == PARQUET else "arrow"
    if file.compression:
        raise DistillError(
            f"the corpus {file.path} cannot be read: a {builder} file is compressed inside; "
            f"decompress it ({file.compression})"
        )
    try:
        rows = load_dataset(builder, split="train", streaming=True, data_files=[file.path])
        for number, row in enumerate(rows, 1):
            yield Row(row, f"row {number} of {file.name}")
    except Exception as problem:  # datasets raises a dozen unrelated types for unreadable input
        raise unreadable(file, problem) from problem


def holds_json_rows(file: CorpusFile) -> bool:
    """Whether the first lines of a file are JSON objects, one in each."""
    try:
        with Reading().opened(file) as stream:
            start = stream.read(PEEKED_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False
    lines = [line for line in start.removeprefix(b"\xef\xbb\xbf").split(b"\n")[:3] if line.strip()]
    return bool(lines) and all(line.lstrip()[:1] == b"{" and _is_json(line) for line in lines[:2])
