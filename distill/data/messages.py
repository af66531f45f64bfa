"""Messages of a row: the turns of its chat and the tools that it may use, as they were given.

It knows the shapes that rows have, not what a template makes of them.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from common.errors import DistillError

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
RESULT_ROLES = ("tool", "function", "ipython")
"""Whose turns say what a tool answered."""
_OTHER_ROLES = {"human": "user", "gpt": "assistant"}
_FIELDS = ("messages", "conversations")
_SHAPES = (("role", "content"), ("from", "value"))


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    """One of `ROLES`."""
    content: str | list[Any] | None = field(hash=False)
    """A text, a list of parts (each a text or a dictionary, such as {"type": "text", "text": ...}),
    or None where the turn only calls tools."""
    others: dict[str, Any] = field(default_factory=dict, hash=False)
    """Its other fields, such as tool_calls, tool_call_id, name or reasoning_content."""

    @property
    def texts(self) -> list[str]:
        """The content, or the texts of its parts."""
        if isinstance(self.content, list):
            return [text for text in map(part_text, self.content) if text is not None]
        return [] if self.content is None else [self.content]

    @property
    def plain(self) -> bool:
        """Whether a role and a text are all there is to it."""
        return isinstance(self.content, str) and not self.others


def part_text(part: Any) -> str | None:
    """The text of a part of a content; None where it is something else, for example an image."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def messages_of(row: dict[str, Any]) -> tuple[Message, ...] | None:
    """The turns of a row with a field `messages` or `conversations`, or None where it has neither.

    Raises DistillError, with the reason alone, for malformed ones.
    """
    for name in _FIELDS:
        if row.get(name) is not None:
            found = _messages(row[name], name)
            system = row.get("system")  # of rows with conversations, beside them
            if isinstance(system, str) and system.strip() and found and found[0].role != "system":
                return (Message("system", system), *found)
            return found
    return None


def _messages(found: Any, name: str) -> tuple[Message, ...]:
    """The turns in a list of them, or in the JSON of one.

    A turn has `role` and `content`, or `from` and `value`. Fields that are null are left out, also
    inside of other fields: a table writes null wherever another row has a field.
    Raises DistillError for anything else.
    """
    found = _by_turns(_parsed(found))
    if not isinstance(found, list):
        raise DistillError(f"its {name} are {shown(found)}; they must be a list")
    return tuple(_message(turn, f"its message {n}") for n, turn in enumerate(found, 1))


def is_chat(text: str) -> bool:
    """Whether a text is the JSON of turns."""
    found = _parsed(text)
    return isinstance(found, list) and bool(found) and all(_has_a_role(turn) for turn in found)


def _has_a_role(turn: Any) -> bool:
    return isinstance(turn, dict) and any(role in turn for role, _ in _SHAPES)


def _by_turns(found: Any) -> Any:
    """A list of turns where the values of each field are given, as older data sets have them."""
    columns = list(found.values()) if isinstance(found, dict) else []
    if not columns or not all(isinstance(column, list) for column in columns):
        return found
    if len({len(column) for column in columns}) > 1:
        return found
    return [dict(zip(found, values, strict=True)) for values in zip(*columns, strict=True)]


def _message(turn: Any, which: str) -> Message:
    role, content = next(
        (shape for shape in _SHAPES if isinstance(turn, dict) and turn.get(shape[0]) is not None),
        _SHAPES[0],
    )
    if not isinstance(turn, dict) or role not in turn:
        raise DistillError(
            f"{which} is {shown(turn)}; it must have the fields 'role' and 'content' (or 'from' "
            "and 'value')"
        )
    who = turn[role]
    if role == "from" and isinstance(who, str):
        who = _OTHER_ROLES.get(who, who)
    if who not in ROLES:
        raise DistillError(
            f"{which} has the {role} {shown(who)}; it must be one of {', '.join(ROLES)}"
        )
    others = {
        name: without_nulls(value)
        for name, value in turn.items()
        if value is not None and name not in (role, content)
    }
    if not others.get("tool_calls", True):
        del others["tool_calls"]  # an empty list of them, which some templates take for a call
    said = turn.get(content)
    if said is None and "tool_calls" not in others and "function_call" not in others:
        raise DistillError(
            f"{which} is {shown(turn)}; it must have the fields '{role}' and '{content}'"
        )
    parts = said if isinstance(said, list) else []
    if not isinstance(said, str | list | None) or not all(isinstance(p, str | dict) for p in parts):
        raise DistillError(
            f"{which} has the {content} {shown(said)}; it must be a string or a list of parts"
        )
    calls = others.get("tool_calls", [])
    if not isinstance(calls, list) or not all(map(_names_a_function, calls)):
        raise DistillError(
            f"{which} has the tool_calls {shown(calls)}; they must be a list, and each must name "
            "a function"
        )
    return Message(who, without_nulls(said), others)


def tools_of(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The tools that the chat of a row may use: its field `tools`, a list or the JSON of one, or
    `functions`, as they were called before.

    None where it has none. Raises DistillError, with the reason alone, for anything else.
    """
    found = _parsed(row.get("tools"))
    if found is None or found in ("", []):
        older = _parsed(row.get("functions"))
        if not older:
            return None
        found = [{"type": "function", "function": each} for each in older if isinstance(each, dict)]
        if not isinstance(older, list) or len(found) < len(older):
            raise DistillError(f"its functions are {shown(older)}; they must be a list")
    tools = [_parsed(tool) for tool in found] if isinstance(found, list) else [None]
    if not all(isinstance(tool, dict) for tool in tools):
        raise DistillError(f"its tools are {shown(found)}; they must be a list")
    return [without_nulls(tool) for tool in tools]


def function_of(tool: dict[str, Any]) -> dict[str, Any]:
    """The `function` of a tool or of a call of one."""
    inner = tool.get("function")
    return inner if isinstance(inner, dict) else tool


def _names_a_function(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(function_of(call).get("name"), str)


def without_nulls(value: Any) -> Any:
    """The same without the fields that are null, at any depth."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def _parsed(value: Any) -> Any:
    """What a string is the JSON of, if it is that of a list or an object."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def shown(value: Any) -> str:
    """The value as Python writes it, shortened for a message."""
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
