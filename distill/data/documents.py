"""Documents of a corpus: a text or a chat, each with the name that splits it.

A text file of a folder is called by its path relative to the folder, so that a study and whoever
trained the teacher hold out the same files; any other document is called by its content, so that a
copy never stands in two splits.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from distill.errors import DistillError

ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """One of `ROLES`."""
    content: str


@dataclass(frozen=True)
class Document:
    """A text, or a chat where `messages` are given."""

    name: str
    text: str
    """Of a chat: the contents of its messages, one after the other."""
    messages: tuple[Message, ...] | None = None
    copies: tuple[str, ...] = ()
    """Names of other documents with the same text, which share its split."""
    place: str = field(default="", compare=False)
    """Where it stands, for messages."""

    @classmethod
    def chat(cls, messages: tuple[Message, ...]) -> "Document":
        """A chat, called by its roles and contents."""
        turns = [[message.role, message.content] for message in messages]
        text = "\n".join(message.content for message in messages)
        return cls(content_name(json.dumps(turns, ensure_ascii=False)), text, messages)


def document_of(row: Any, place: str, column: str | None = None) -> Document | None:
    """The document of a row, or None where the row has no text in it.

    Its text is in `column`, else in `text`; its chat in `messages` (each with `role` and `content`)
    or `conversations` (`from` and `value`). Where it has both, it is the chat. Raises DistillError,
    with the reason alone, for a row that is neither.
    """
    if not isinstance(row, dict):
        raise DistillError(f"it is {_shown(row)} and no object with fields")
    if column is not None:
        row = _with_column(row, column)
    messages = _messages(row)
    if messages:
        document = Document.chat(messages)
    elif isinstance(row.get("text"), str):
        document = Document(content_name(row["text"]), row["text"])
    elif messages is not None or ("text" in row and row["text"] is None):
        return None
    elif "text" in row:
        raise DistillError(f"its field 'text' is {_shown(row['text'])}; it must be a string")
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
    """The row with what is in the column as its text or its chat."""
    if column not in row:
        raise DistillError(f"it has no field {column!r} (--corpus_from.field), but {_fields(row)}")
    held = row[column]
    others = {name: value for name, value in row.items() if name == "tools"}
    if isinstance(held, list):
        first = held[0] if held and isinstance(held[0], dict) else {}
        return {"conversations" if "from" in first else "messages": held, **others}
    return {"text": held}


def _fields(row: dict[str, Any]) -> str:
    names = [repr(str(name)) for name in row]
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return shown or "no fields at all"


def _messages(row: dict[str, Any]) -> tuple[Message, ...] | None:
    """The turns of a row, or None where it is no chat. Raises DistillError for malformed ones."""
    field, role, content = "messages", "role", "content"
    if row.get(field) is None:
        field, role, content = "conversations", "from", "value"
    found = row.get(field)
    if found is None:
        return None
    if not isinstance(found, list):
        raise DistillError(f"it has {field} that are {_shown(found)}; they must be a list")
    turns = []
    for number, message in enumerate(found, 1):
        which = f"its message {number}"
        if not isinstance(message, dict) or role not in message or content not in message:
            raise DistillError(
                f"{which} is {_shown(message)}; it must have the fields '{role}' and '{content}'"
            )
        who = message[role]
        who = _OTHER_ROLES.get(who, who) if role == "from" and isinstance(who, str) else who
        if who not in ROLES:
            raise DistillError(
                f"{which} has the {role} {_shown(who)}; it must be one of {', '.join(ROLES)}"
            )
        if message.get("tool_calls"):
            raise DistillError(
                f"{which} calls tools, which a corpus cannot hold; leave the row out"
            )
        if not isinstance(message[content], str):
            raise DistillError(
                f"{which} has the {content} {_shown(message[content])}; it must be a string"
            )
        turns.append(Message(who, message[content]))
    return tuple(turns)


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."


def content_name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
