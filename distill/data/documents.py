"""Documents of a corpus: read from files or from a data set, each with the name that splits it.

It knows formats, not tokens. A document is a text or a chat. A file of a folder is called by its
path relative to the folder, so that a study and whoever trained the teacher hold out the same
files; any other document is called by its content, so that a copy never stands in two splits.
"""

import fnmatch
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.data.messages import Message, messages_of, tools_of
from distill.errors import DistillError

PIECE_BYTES = 8192
LINE_SUFFIXES = (".jsonl", ".jsonl.gz")
_NO_SOURCE = "is neither a file, a folder nor a readable data set"


@dataclass(frozen=True)
class Document:
    """A text, or a chat where `messages` are given."""

    name: str
    text: str
    """Of a chat: the texts of its messages, one after the other."""
    messages: tuple[Message, ...] | None = None
    tools: list[dict[str, Any]] | None = field(default=None, hash=False)
    """What a chat may call: the schema of each tool."""

    @classmethod
    def chat(
        cls, messages: tuple[Message, ...], tools: list[dict[str, Any]] | None = None
    ) -> "Document":
        """A chat, called by its roles and contents, and by tools and other fields if it has any."""
        turns: Any = [[message.role, message.content] for message in messages]
        if tools or not all(message.plain for message in messages):
            others = [message.others for message in messages]
            turns = {"messages": turns, "others": others, "tools": tools or []}
        named = json.dumps(turns, ensure_ascii=False, sort_keys=True, default=str)
        text = "\n".join(text for message in messages for text in message.texts)
        return cls(_content_name(named), text, messages, tools or None)


def read_documents(
    source: str, include: tuple[str, ...], exclude: tuple[str, ...]
) -> Iterator[Document]:
    """The documents of a .txt, .jsonl, .jsonl.gz or .parquet file, a folder, or a Hub data set.

    `include` and `exclude` are file-name patterns for a folder; `exclude` also drops folders.
    A row of a table or data set has a field `text`, or it is a chat with a field `messages` or
    `conversations` (see `distill.data.messages`) and maybe `tools`; where it has both, it is the
    chat. Rows without text in them are left out, and so are all other fields.
    Raises DistillError where the source is missing, cannot be read or has no text in it, and for a
    row that is neither.
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
        if path.name.endswith(LINE_SUFFIXES):
            return _json_lines(path)
        if path.suffix == ".parquet":
            return _rows("parquet", str(path), {"data_files": str(path)})
        return (Document(_content_name(piece), piece) for piece in _pieces(_decoded(path)))
    if source.count("/") <= 1 and not source.startswith((".", "/", "~")):
        return _rows(source, source, {})
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


def _json_lines(path: Path) -> Iterator[Document]:
    """Read line by line: rows of one file may have other fields than those before them."""
    opened = gzip.open if path.suffix == ".gz" else open
    line = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for line, written in enumerate(file, 1):
                if written.strip():
                    yield from _document(json.loads(written), f"line {line} of {path}")
    except UnicodeDecodeError as problem:
        raise DistillError(f"the corpus {path} cannot be read: it is not UTF-8 text") from problem
    except json.JSONDecodeError as problem:
        raise DistillError(
            f"the corpus {path} cannot be read: line {line} is not JSON ({problem.msg})"
        ) from problem
    except (OSError, EOFError, zlib.error) as problem:
        raise DistillError(f"the corpus {path} cannot be read: {problem}") from problem


def _rows(builder: str, shown: str, options: dict[str, str]) -> Iterator[Document]:
    from datasets import load_dataset  # slow to import; trial workers import this package

    try:
        rows = load_dataset(builder, split="train", streaming=True, **options)
        for number, row in enumerate(rows, 1):
            yield from _document(row, f"row {number} of {shown}")
    except DistillError:
        raise
    except Exception as problem:  # datasets raises a dozen unrelated types for unreadable input
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        known = "cannot be read" if "data_files" in options else _NO_SOURCE
        raise DistillError(f"the corpus {shown} {known}: {reason}") from problem


def _document(row: Any, where: str) -> Iterator[Document]:
    """The document of a row, or none where the row has no text in it."""
    if not isinstance(row, dict):
        raise DistillError(f"{where} is not an object with a field 'text' or 'messages'")
    messages = messages_of(row, where)
    if messages:
        document = Document.chat(messages, tools_of(row, where))
    elif isinstance(row.get("text"), str):
        document = Document(_content_name(row["text"]), row["text"])
    elif messages is not None:
        return
    else:
        raise DistillError(
            f"{where} has neither a field 'text' that is a string nor a field 'messages'"
        )
    try:
        document.text.encode()
    except UnicodeEncodeError as problem:
        raise DistillError(f"{where} has a lone surrogate, which is no text; mend it") from problem
    if document.text.strip():
        yield document


def _content_name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
