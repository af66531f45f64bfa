"""Documents of a corpus: read from files or from a data set, each with the name that splits it.

It knows formats, not tokens. A file of a folder is called by its path relative to the folder, so
that a study and whoever trained the teacher hold out the same files; any other document is called
by its content, so that a copy never stands in two splits.
"""

import fnmatch
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DistillError

PIECE_BYTES = 8192
TABLE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_NO_SOURCE = "is neither a file, a folder nor a readable data set"


@dataclass(frozen=True)
class Document:
    name: str
    text: str


def read_documents(
    source: str, include: tuple[str, ...], exclude: tuple[str, ...]
) -> Iterator[Document]:
    """The documents of a .txt, .jsonl, .jsonl.gz or .parquet file, a folder, or a Hub data set.

    `include` and `exclude` are file-name patterns for a folder; `exclude` also drops folders.
    Raises DistillError where the source is missing, cannot be read or has no text in it.
    """
    found = False
    for document in _read(source, include, exclude):
        found = True
        yield document
    if not found:
        raise DistillError(f"the corpus {source} is empty: no document with text is in it")


def _read(source: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> Iterator[Document]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, include, exclude)
    if path.is_file():
        if path.name.endswith(TABLE_SUFFIXES):
            return _table(path)
        return (Document(_content_name(piece), piece) for piece in _pieces(_decoded(path)))
    if source.count("/") <= 1 and not source.startswith((".", "/", "~")):
        return _hub(source)
    raise DistillError(
        f"the corpus {source} does not exist; give a file, a folder or a Hub data set"
    )


def _folder(root: Path, include: tuple[str, ...], exclude: tuple[str, ...]) -> Iterator[Document]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        dropped = any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in exclude)
        if dropped or not path.is_file():
            continue
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in include):
            text = _decoded(path)
            if text.strip():
                yield Document("/".join(parts), text)


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DistillError(
            f"{path} is not UTF-8 text (byte {problem.start}); convert it, or leave it out with "
            "--corpus_files.exclude"
        ) from problem
    except OSError as problem:
        raise DistillError(f"{path} cannot be read: {problem.strerror}") from problem


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs; one that is long is broken at a line end near `PIECE_BYTES`."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        piece: list[str] = []
        size = 0
        for line in paragraph.splitlines(keepends=True):
            piece.append(line)
            size += len(line.encode())
            if size >= PIECE_BYTES:
                yield "".join(piece)
                piece, size = [], 0
        if "".join(piece).strip():
            yield "".join(piece)


def _table(path: Path) -> Iterator[Document]:
    kind = "parquet" if path.suffix == ".parquet" else "json"
    yield from _rows(kind, str(path), {"data_files": str(path)})


def _hub(name: str) -> Iterator[Document]:
    yield from _rows(name, name, {})


def _rows(builder: str, shown: str, options: dict[str, str]) -> Iterator[Document]:
    from datasets import load_dataset  # slow to import; trial workers import this package

    try:
        rows = load_dataset(builder, split="train", streaming=True, **options)
        for row in rows:
            if not isinstance(row.get("text"), str):
                raise DistillError(f"{shown} has a row without a field 'text' that is a string")
            if row["text"].strip():
                yield Document(_content_name(row["text"]), row["text"])
    except DistillError:
        raise
    except Exception as problem:  # datasets raises a dozen unrelated types for unreadable input
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        known = "cannot be read" if "data_files" in options else _NO_SOURCE
        raise DistillError(f"the corpus {shown} {known}: {reason}") from problem


def _content_name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
