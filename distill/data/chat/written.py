"""Check that a chat template renders all of a chat: contents in parts, tools, calls and results.

A template leaves out what it does not know, or writes it as Python shows it, without a word; a
student would learn that. Such chats are refused.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from distill.data.chat.template import Chat, ChatTemplate, UnusableChat
from distill.data.documents import Document
from distill.data.messages import RESULT_ROLES, function_of, part_text

Turn = dict[str, Any]
_WORD = "xq7probe{}x"
"""As a function may be called, so that every template writes it as it is."""
_MEDIA = ("image", "image_url", "input_image", "audio", "input_audio", "video", "input_video")


def write_chat(template: ChatTemplate, document: Document) -> tuple[Chat, str]:
    """The chat in the form that the template takes, and its rendered text.

    Arguments of tool calls are given as objects, also where they are the JSON of one, since that is
    what templates are written for and what servers give them; where the template does not write
    them well so, as JSON.
    Raises DistillError where the tokenizer has no template, and UnusableChat for a chat that it
    does not take, or does not write as it should.
    """
    given = Chat.of(document)
    forms = [_in_form(given, _object_of), given, _in_form(given, _json_of)]
    faults = []
    for number, chat in enumerate(forms):
        if chat not in forms[:number]:
            try:
                return chat, _written(template, chat)
            except UnusableChat as fault:
                faults.append(fault)
    raise faults[0]


def _written(template: ChatTemplate, chat: Chat) -> str:
    for number, part in chat.parts():
        if isinstance(part, dict) and part.get("type") in _MEDIA:
            raise UnusableChat(
                f"{chat} has a part of type {part['type']!r} (message {number}), which is no text"
            )
    text = template.render(chat)
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise UnusableChat(f"{chat} has a lone surrogate, which is no text") from problem
    fault = (
        _garbled(chat, text) or _left_out(template, chat, text) or _arguments_left_out(chat, text)
    )
    if fault:
        raise UnusableChat(f"the tokenizer's chat template {fault} of {chat}")
    return text


def _garbled(chat: Chat, text: str) -> str | None:
    """What the template writes as Python shows it, or as JSON inside of JSON."""
    for number, turn in enumerate(chat.turns, 1):
        if isinstance(turn.get("content"), list) and str(turn["content"]) in text:
            return f"writes the content as a list of Python (message {number})"
    for number, part in chat.parts():
        if _as_python(part, text):
            return f"writes a part of a content as a dictionary of Python (message {number})"
    if any(_as_python(tool, text) for tool in chat.tools or []):
        return "writes a tool as a dictionary of Python"
    for number, call in chat.calls():
        given = call.get("arguments")
        inside = given.values() if isinstance(given, dict) else ()
        if any(_as_python(value, text) for value in (call, given, *inside)):
            return f"writes a tool call as a dictionary of Python (message {number})"
        if isinstance(given, str) and '"' in given and _in_quotes(given) in text:
            return f"writes arguments of a tool call as a string of JSON (message {number})"
    return None


def _as_python(value: Any, text: str) -> bool:
    """Whether the text has a dictionary or list as only Python writes it."""
    if not isinstance(value, dict | list):
        return False
    return str(value) in text and str(value) != json.dumps(value, ensure_ascii=False)


def _in_quotes(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments_left_out(chat: Chat, text: str) -> str | None:
    for number, call in chat.calls():
        for word in _texts_in(call.get("arguments")):
            as_json = (
                json.dumps(word, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)
            )
            if word.strip() not in text and not any(each in text for each in as_json):
                return f"leaves out arguments of a tool call (message {number})"
    return None


def _texts_in(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, the names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in [*value, *(value.values() if isinstance(value, dict) else [])]:
            yield from _texts_in(each)


def _left_out(template: ChatTemplate, chat: Chat, text: str) -> str | None:
    """What the template does not write: a text part, a tool, a call of one or its result."""
    words = _Words()
    other = words.in_place_of(chat)
    if not words.meant:
        return None
    try:
        shown = template.render(other)
    except UnusableChat:  # the template knows these names from elsewhere
        missing = [what for before, what in words.meant.values() if before not in text]
    else:
        missing = [what for word, (_, what) in words.meant.items() if word not in shown]
    return f"leaves out {missing[0]}" if missing else None


class _Words:
    """Placeholders for the texts that a template must write, so that each can be recognised."""

    def __init__(self) -> None:
        self.meant: dict[str, tuple[str, str]] = {}
        """Word -> what stood there before, and what that is."""

    def in_place_of(self, chat: Chat) -> Chat:
        turns = [self._turn(turn, number) for number, turn in enumerate(chat.turns, 1)]
        tools = chat.tools and [self._named(tool, "the tool {}") for tool in chat.tools]
        return Chat(turns, tools)

    def _turn(self, turn: Turn, number: int) -> Turn:
        content, which = turn.get("content"), f"(message {number})"
        if isinstance(content, list):
            turn = turn | {"content": [self._part(part, which) for part in content]}
        elif content and turn["role"] in RESULT_ROLES:
            turn = turn | {"content": self._word(content, f"what a tool answers {which}")}
        return _with_calls(turn, lambda call: self._named(call, f"the call of {{}} {which}"))

    def _part(self, part: Any, which: str) -> Any:
        text = part_text(part)
        if not text or not text.strip():
            return part
        word = self._word(text, f"a part {which}")
        return part | {"text": word} if isinstance(part, dict) else word

    def _named(self, tool: dict[str, Any], what: str) -> dict[str, Any]:
        inner = function_of(tool)
        name = inner.get("name")
        if not isinstance(name, str):
            return tool
        return _with_function(tool, inner | {"name": self._word(name, what.format(repr(name)))})

    def _word(self, before: str, what: str) -> str:
        word = _WORD.format(len(self.meant))
        self.meant[word] = before.strip(), what
        return word


def _with_function(tool: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    return inner if function_of(tool) is tool else tool | {"function": inner}


def _in_form(chat: Chat, form: Callable[[Any], Any]) -> Chat:
    """With the arguments of tool calls in that form."""
    change = partial(_with_arguments, form=form)
    return replace(chat, turns=[_with_calls(turn, change) for turn in chat.turns])


def _with_calls(turn: Turn, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Turn:
    """With every call of a tool changed."""
    if "tool_calls" in turn:
        turn = turn | {"tool_calls": [change(call) for call in turn["tool_calls"]]}
    if isinstance(turn.get("function_call"), dict):
        turn = turn | {"function_call": change(turn["function_call"])}
    return turn


def _with_arguments(call: dict[str, Any], form: Callable[[Any], Any]) -> dict[str, Any]:
    inner = function_of(call)
    if "arguments" not in inner:
        return call
    return _with_function(call, inner | {"arguments": form(inner["arguments"])})


def _object_of(arguments: Any) -> Any:
    try:
        found = json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
    return found if isinstance(found, dict) else arguments


def _json_of(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
