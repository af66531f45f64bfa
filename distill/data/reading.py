"""Documents of a source, one at a time, and a tally of unusable rows."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import DistillError
from distill.data.documents import Document, content_name, document_of
from distill.data.files.formats import BROKEN, TEXT, CorpusFile, Reading
from distill.data.files.rows import Row, Unusable, rows_of, unreadable
from distill.data.files.sources import CorpusFiles, Source, find_sources
from distill.data.settings import CorpusFrom

PIECE_BYTES = 8192
LINE_BYTES = 1 << 20
"""A line of a text file that is longer is cut."""
SHOWN_REASONS = 3
"""Reasons that are said of rows that cannot be used."""
EARLY_ROWS = 200
"""Rows after which a corpus that is mostly unusable is refused."""


@dataclass
class Tally:
    """Counts of the rows of a corpus: with text, without, and unusable."""

    max_bad_share: float
    """Share of unusable rows above which a corpus is refused."""
    rows: int = 0
    """Rows that were read."""
    empty: int = 0
    """Rows without text."""
    bad: int = 0
    """Rows that cannot be used."""
    reasons: list[str] = field(default_factory=list)
    """The first of them, each with its place."""

    def count(self, item: "Document | Unusable | None") -> None:
        """Raises DistillError early where more than half of the rows cannot be used."""
        self.rows += 1
        if item is None:
            self.empty += 1
        elif isinstance(item, Unusable):
            self.bad += 1
            if len(self.reasons) < SHOWN_REASONS:
                self.reasons.append(f"{item.place}: {item.reason}")
        half = max(self.max_bad_share, 0.5)
        if self.bad and self.rows == EARLY_ROWS and self.bad > half * self.rows:
            self._refuse()

    def close(self) -> None:
        """Raises DistillError where too many rows cannot be used."""
        if self.bad > self.max_bad_share * self.rows:
            self._refuse()

    @property
    def usable(self) -> int:
        """Rows with text."""
        return self.rows - self.empty - self.bad

    def lines(self) -> list[str]:
        """Lines about rows that were left out; none where nothing was."""
        lines = []
        if self.empty:
            lines.append(f"{self.empty:,} of {self.rows:,} rows or files without text left out")
        if self.bad:
            reasons = "; ".join(self.reasons)
            more = self.bad - len(self.reasons)
            others = f"; and {more:,} more" if more else ""
            lines.append(
                f"{_rows(self.bad)} of {self.rows:,} could not be used and left out: "
                f"{reasons}{others}"
            )
        return lines

    def state(self) -> dict[str, Any]:
        """The counts as JSON has them; `Tally(**state)` goes on from them."""
        return asdict(self)

    def _refuse(self) -> None:
        share = self.bad / self.rows
        raise DistillError(
            f"{self.bad:,} of {self.rows:,} rows of the corpus ({share:.1%}) cannot be used, above "
            f"--corpus_from.max_bad_share {self.max_bad_share:g}: {'; '.join(self.reasons)}"
        )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def read_documents(
    given: str | list[str],
    files: CorpusFiles | None = None,
    reading: CorpusFrom | None = None,
) -> Iterator[Document]:
    """The documents of files, folders or Hub data sets, one source after the other.

    Raises DistillError where a source is missing, cannot be read or has no text in it, and where
    more rows than `max_bad_share` cannot be used.
    """
    reading = reading or CorpusFrom()
    tally = Tally(reading.max_bad_share)
    found = False
    for source in find_sources(given, files or CorpusFiles(), reading):
        for item in items_of(source, Reading()):
            tally.count(item)
            if isinstance(item, Document):
                found = True
                yield item
    tally.close()
    if not found:
        raise empty_corpus(given)


def empty_corpus(given: str | list[str]) -> DistillError:
    """That there is no text."""
    shown = given if isinstance(given, str) else ", ".join(given)
    return DistillError(f"the corpus {shown} is empty: no document with text is in it")


def items_of(source: Source, reading: Reading) -> Iterator[Document | Unusable | None]:
    """Documents and unusable rows of a source, in order; None stands for a row without text."""
    for file in source.files:
        if file.format != TEXT:
            for row in rows_of(file, reading, source.text_column):
                yield _item(row, source.text_column)
        elif source.named_by_path:
            yield _whole(file, reading)
        else:
            yield from _pieces(file, reading)
        reading.passed(file)


def _item(row: Row | Unusable, column: str | None) -> Document | Unusable | None:
    if isinstance(row, Unusable):
        return row
    try:
        return document_of(row.value, row.place, column)
    except DistillError as problem:
        return Unusable(row.place, str(problem))


def _whole(file: CorpusFile, reading: Reading) -> Document | None:
    with reading.opened(file) as stream:
        text = _decoded(_read(stream, file), file)
    if not text.strip():
        return None
    return Document(file.name, text, copies=file.copies, place=file.name)


def _read(stream: io.BufferedIOBase, file: CorpusFile) -> bytes:
    try:
        return stream.read()
    except BROKEN as problem:
        raise unreadable(file, problem) from problem


def _decoded(data: bytes, file: CorpusFile, before: int = 0) -> str:
    if b"\0" in data:
        raise DistillError(
            f"{file.path} is not text (byte {before + data.index(0)} is 0); convert it to UTF-8, "
            "or leave it out with --corpus_files.exclude"
        )
    try:
        return data.removeprefix(b"" if before else b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DistillError(
            f"{file.path} is not UTF-8 text (byte {before + problem.start}); convert it, or leave "
            "it out with --corpus_files.exclude"
        ) from problem


def _pieces(file: CorpusFile, reading: Reading) -> Iterator[Document]:
    """Paragraphs of a text file; one that is long is broken at a line end near `PIECE_BYTES`."""
    with reading.opened(file) as stream:
        for number, piece in enumerate(_paragraphs(_text_lines(stream, file)), 1):
            yield Document(content_name(piece), piece, place=f"paragraph {number} of {file.name}")


def _text_lines(stream: io.BufferedIOBase, file: CorpusFile) -> Iterator[str]:
    """Lines; one longer than `LINE_BYTES` is cut after a blank, or else between two characters."""
    before, carried = 0, b""
    while True:
        try:
            read = stream.readline(LINE_BYTES)
        except BROKEN as problem:
            raise unreadable(file, problem) from problem
        line = carried + read
        if not line:
            return
        cut = len(line)
        if len(read) == LINE_BYTES and not read.endswith(b"\n"):
            cut = line.rfind(b" ") + 1 or _character_start(line, len(line) - 1) or cut
        yield _decoded(line[:cut], file, before).replace("\r\n", "\n")
        before += cut
        carried = line[cut:]


def _character_start(line: bytes, at: int) -> int:
    """Where the UTF-8 character begins that the byte is of."""
    while at > 0 and line[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        if not line.strip():
            if held:
                yield "".join(held).removesuffix("\n")
            held, size = [], 0
            continue
        if size >= PIECE_BYTES:
            yield "".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line.encode())
    if held:
        yield "".join(held)
