"""Chat template of a tokenizer: chats in its words, on a day that does not change."""

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from common.errors import DistillError
from distill.data.documents import Document
from distill.data.messages import function_of, part_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character and the one after the last."""
_DIRECTIVES = "aAbBcdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ"
_UNPADDED = "deHIjklmMSUVWy"


class UnusableChat(DistillError):
    """A chat that cannot be learned from, while others of its corpus may."""


@dataclass(frozen=True)
class Chat:
    """Chat in the form that templates take."""

    turns: list[dict[str, Any]]
    """Each with `role` and, mostly, `content`."""
    tools: list[Any] | None
    """The schema of each, a dictionary."""

    @classmethod
    def of(cls, document: Document) -> "Chat":
        """That of a document with messages."""
        assert document.messages is not None
        turns = []
        for message in document.messages:
            # without a content of None, as transformers has it: templates write the word None
            said = {} if message.content is None else {"content": message.content}
            turns.append({"role": message.role, **said, **message.others})
        return cls(turns, document.tools)

    def until(self, turn: int) -> "Chat":
        """The turns before `turn`."""
        return replace(self, turns=self.turns[:turn])

    def calls(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the message, what is called) for every call of a tool."""
        for number, turn in enumerate(self.turns, 1):
            for call in calls_of(turn):
                yield number, function_of(call)

    def parts(self) -> Iterator[tuple[int, Any]]:
        """(number of the message, part) of all contents in parts."""
        for number, turn in enumerate(self.turns, 1):
            if isinstance(turn.get("content"), list):
                for part in turn["content"]:
                    yield number, part

    def __str__(self) -> str:
        content = self.turns[0].get("content", "")
        texts = [part_text(part) for part in content] if isinstance(content, list) else [content]
        first = next((text for text in texts if text), "")
        return f"the chat that begins {first[:40]!r}"


def calls_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that a turn calls, also in the older form of one call."""
    older = turn.get("function_call")
    return [*turn.get("tool_calls", []), *([older] if isinstance(older, dict) else [])]


@dataclass(frozen=True)
class ChatTemplate:
    """The template of a tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"
    """Has the template."""
    day: datetime.date
    """What a template is told that asks for the day, or at midnight (UTC) for the time."""
    added: tuple[str, ...]
    """What the tokenizer's added tokens are written as; a turn ends with one of them."""

    def render(self, chat: Chat, prompted: bool = False) -> str:
        """The rendered chat; `prompted` adds the generation prompt.

        Raises DistillError where the tokenizer has no template that can be used, and UnusableChat
        where the template does not take this chat.
        """
        own = self.text(chat)
        pinned = self._pinned(own)
        options: dict[str, Any] = {} if pinned == own else {"chat_template": pinned}
        try:
            rendered = self.tokenizer.apply_chat_template(
                chat.turns,
                tools=chat.tools,
                tokenize=False,
                add_generation_prompt=prompted,
                **options,
            )
        except Exception as problem:  # a template is a program and raises what it likes
            raise _refused(chat, problem) from problem
        assert isinstance(rendered, str)
        return rendered

    def render_marked(self, chat: Chat) -> tuple[str, list[Span]]:
        """The same with what the template marks by {% generation %}; raises as `render`."""
        # not the mask of apply_chat_template: it runs on to the chat's end where a marked part ends
        # in a blank that no token's characters cover
        from transformers.utils.chat_template_utils import render_jinja_template

        options: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        try:
            found: Any = render_jinja_template(
                [chat.turns],
                tools=chat.tools,
                chat_template=self._pinned(self.text(chat)),
                return_assistant_tokens_mask=True,
                **options,
            )
        except Exception as problem:
            raise _refused(chat, problem) from problem
        (text,), (spans,) = found
        return text, list(spans)

    def text(self, chat: Chat) -> str:
        """The template itself. Raises DistillError where there is none for a chat like this."""
        try:
            return self.tokenizer.get_chat_template(tools=chat.tools)
        except ValueError as problem:
            raise DistillError(
                "the corpus has chats, but the tokenizer has no chat template (or several and no "
                "default); give a teacher whose tokenizer has one, or a corpus of plain text"
            ) from problem

    def _pinned(self, template: str) -> str:
        """The template where every day is `day`."""
        return self._calendar + template if "strftime_now" in template else template

    @cached_property
    def _calendar(self) -> str:
        """A macro in the place of transformers' function of that name.

        It cannot be given as a variable: transformers hands no function on to a template. The line
        break at its end is not written; with it, the template still begins at a line's beginning.
        """
        midnight = datetime.datetime.combine(self.day, datetime.time(), datetime.UTC)
        codes = [f"%{code}" for code in _DIRECTIVES] + [f"%-{code}" for code in _UNPADDED]
        written = {"%%": "\0"} | {code: midnight.strftime(code) for code in codes} | {"\0": "%"}
        return (
            "{% macro strftime_now(format) %}{% set day = namespace(text=format) %}"
            f"{{% for code, value in {json.dumps(written)}.items() %}}"
            "{% set day.text = day.text.replace(code, value) %}{% endfor %}"
            "{{ day.text }}{% endmacro %}\n"
        )


def _refused(chat: Chat, problem: Exception) -> DistillError:
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    if type(problem).__name__ in ("TemplateSyntaxError", "ImportError"):
        return DistillError(f"the tokenizer's chat template cannot be used: {reason}")
    return UnusableChat(
        f"the tokenizer's chat template does not take the first {len(chat.turns)} messages of "
        f"{chat} ({reason})"
    )
