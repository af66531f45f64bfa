"""Documents of a corpus: a text or a chat, each with the name that splits it.

A text file of a folder is called by its path relative to the folder, so that a study and whoever
trained the teacher hold out the same files; any other document is called by its content, so that a
copy never stands in two splits.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import DistillError
from distill.data.messages import Message, is_chat, messages_of, shown, tools_of


@dataclass(frozen=True)
class Document:
    """A text, or a chat where `messages` are given."""

    name: str
    """Decides the split of the document; unique in a corpus."""
    text: str
    """Of a chat: the texts of its messages, one after the other."""
    messages: tuple[Message, ...] | None = None
    """The turns of a chat; None of a plain text."""
    tools: list[dict[str, Any]] | None = field(default=None, hash=False)
    """What a chat may call: the schema of each tool."""
    copies: tuple[str, ...] = ()
    """Names of other documents with the same text, which share its split."""
    place: str = field(default="", compare=False)
    """Where it stands, for messages."""

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
        return cls(content_name(named), text, messages, tools or None)


def document_of(row: Any, place: str, column: str | None = None) -> Document | None:
    """The document of a row, or None where the row has no text in it.

    Its text is in `column`, else in `text`; its chat in `messages` (each with `role` and `content`)
    or `conversations` (`from` and `value`). Where it has both, it is the chat. Raises DistillError,
    with the reason alone, for a row that is neither.
    """
    if not isinstance(row, dict):
        raise DistillError(f"it is {shown(row)} and no object with fields")
    if column is not None:
        row = _with_column(row, column)
    messages = messages_of(row)
    if messages:
        document = Document.chat(messages, tools_of(row))
    elif isinstance(row.get("text"), str):
        document = Document(content_name(row["text"]), row["text"])
    elif messages is not None or ("text" in row and row["text"] is None):
        return None
    elif "text" in row:
        raise DistillError(f"its field 'text' is {shown(row['text'])}; it must be a string")
    else:
        raise DistillError(
            f"it has neither a field 'text' nor 'messages', but {_fields(row)} "
            "(--corpus_from.field names the one to read)"
        )
    try:
        document.text.encode()
    except UnicodeEncodeError as problem:
        raise DistillError("it has a lone surrogate, which is no text") from problem
    return replace(document, place=place) if document.text.strip() else None


def _with_column(row: dict[str, Any], column: str) -> dict[str, Any]:
    """The row with the content of the column as its text or its chat."""
    if column not in row:
        raise DistillError(f"it has no field {column!r} (--corpus_from.field), but {_fields(row)}")
    held = row[column]
    others: dict[str, Any] = {
        name: row[name] for name in ("tools", "functions", "system") if name in row
    }
    if isinstance(held, list) or (isinstance(held, str) and is_chat(held)):
        return {"messages": held, **others}
    if isinstance(held, str) and held.lstrip().startswith(("[{'", "{'")):
        raise DistillError(f"its field {column!r} is Python's way of writing a list, and no JSON")
    return {"text": held}


def _fields(row: dict[str, Any]) -> str:
    names = [repr(str(name)) for name in row]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "no fields at all"


def content_name(text: str) -> str:
    """The name of a document that has no other: a hash of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
