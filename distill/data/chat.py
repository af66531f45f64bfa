"""Chats as tokens: rendered by the tokenizer's own template, with what the assistant says marked.

It knows templates and tokens, not corpora. The template writes every special token, so none is
added. An assistant's turn is what follows the generation prompt, up to and with the token that ends
the turn; the line break that many templates put after that token is nothing a model generates.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.data.documents import Document, Message
from distill.errors import DistillError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character and the one after the last."""
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "\ue000"
"""Of the private-use area, so no content begins with it."""
_REMEDY = (
    "give the tokenizer a template with {% generation %} markers, or leave out --assistant_only"
)


@dataclass(frozen=True)
class Encoded:
    """A document as tokens."""

    ids: NDArray[np.int64]
    """[tokens], with the end-of-text token where one follows the document."""
    counted: NDArray[np.bool_]
    """[tokens], whether a token is the assistant's; of a plain text every one is."""


@dataclass(frozen=True)
class Rejected:
    """A document that cannot be used."""

    reason: str


@dataclass(frozen=True)
class Encoder:
    """Turns documents into token ids; made once per corpus by `Encoder.of`."""

    tokenizer: "PreTrainedTokenizerBase"
    spans_wanted: bool
    """Whether the assistant's tokens are looked for; else every token counts."""
    added: tuple[str, ...]
    """What the tokenizer's added tokens are written as; a turn ends with one of them."""

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        assistant_only: bool,
        bos: str = "auto",
        day: Any = None,
    ) -> "Encoder":
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        added |= set(tokenizer.all_special_tokens)
        return cls(tokenizer, assistant_only, tuple(sorted(token for token in added if token)))

    def encode(self, documents: Sequence[Document]) -> "list[Any]":
        """Token ids of each document.

        An end-of-text token follows a plain text where the tokenizer has one, and a chat only if
        its template does not end the last turn with a token of its own; then it counts as the
        assistant's where that turn is. A token that lies across the border of the assistant's turn
        is the assistant's.
        Raises DistillError for chats without a template, or with one that does not take them or
        does not show what the assistant says.
        """
        read = [self._text_and_spans(document) for document in documents]
        offsets = self.spans_wanted and self.tokenizer.is_fast
        found = self.tokenizer(
            [text for text, _ in read],
            add_special_tokens=False,
            verbose=False,
            return_offsets_mapping=offsets,
        )
        rows = []
        for at, (document, (text, spans)) in enumerate(zip(documents, read, strict=True)):
            ids = found["input_ids"][at]
            if spans is None:
                counted = np.ones(len(ids), np.bool_)
            elif offsets:
                counted = tokens_within(found["offset_mapping"][at], spans)
            else:
                counted = self._tokens_between(text, ids, spans)
            rows.append(self._ended(document, text, ids, counted))
        return rows

    def _text_and_spans(self, document: Document) -> tuple[str, list[Span] | None]:
        """What is tokenised, and where in it the assistant speaks; None where all of it counts."""
        if document.messages is None:
            return document.text, None
        if not self.spans_wanted:
            return self.render(document.messages), None
        return self.assistant_spans(document.messages)

    def _ended(
        self, document: Document, text: str, ids: list[int], counted: NDArray[np.bool_]
    ) -> Encoded:
        """With the end-of-text token where one belongs after the document."""
        end = self.tokenizer.eos_token_id
        chat = document.messages
        if end is None or (chat is not None and text.rstrip().endswith(self.added)):
            return Encoded(np.asarray(ids, np.int64), counted)
        ours = not self.spans_wanted or chat is None or chat[-1].role == "assistant"
        return Encoded(np.asarray([*ids, end], np.int64), np.append(counted, ours))

    def render(self, messages: Sequence[Message], prompted: bool = False) -> str:
        """The chat in the template's words; `prompted` adds what asks the assistant to speak."""
        self._require_template()
        try:
            rendered = self.tokenizer.apply_chat_template(
                _plain(messages), tokenize=False, add_generation_prompt=prompted
            )
        except Exception as problem:  # a template is a program and raises what it likes
            raise _refused(messages, problem) from problem
        assert isinstance(rendered, str)
        return rendered

    def assistant_spans(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The rendered chat, and where in it the assistant speaks.

        As the template marks it with {% generation %}; else from the chat rendered up to each turn.
        """
        if _MARKED.search(self._require_template()):
            return self._marked_spans(messages)
        text = self.render(messages)
        spans = []
        for turn, message in enumerate(messages):
            if message.role == "assistant":
                start = self._start(messages, turn, text)
                end = self._end(messages, turn, text, start)
                without_break = text[start:end].rstrip()
                if without_break.endswith(self.added):
                    end = start + len(without_break)
                spans.append((start, end))
        return text, spans

    def _require_template(self) -> str:
        try:
            return self.tokenizer.get_chat_template()
        except ValueError as problem:
            raise DistillError(
                "the corpus has chats, but the tokenizer has no chat template (or several and no "
                "default); give a teacher whose tokenizer has one, or a corpus of plain text"
            ) from problem

    def _marked_spans(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        # not the mask of apply_chat_template: it runs on to the chat's end where a marked part ends
        # in a blank that no token's characters cover
        from transformers.utils.chat_template_utils import render_jinja_template

        options: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        try:
            found: Any = render_jinja_template(
                [_plain(messages)],
                chat_template=self._require_template(),
                return_assistant_tokens_mask=True,
                **options,
            )
        except Exception as problem:
            raise _refused(messages, problem) from problem
        (text,), (spans,) = found
        return text, list(spans)

    def _start(self, messages: Sequence[Message], turn: int, text: str) -> int:
        """Where the assistant begins to speak: after the generation prompt."""
        if turn == 0:
            raise DistillError(
                f"{_called(messages)} begins with the assistant, before anything asks it to speak; "
                f"leave the chat out, {_REMEDY}"
            )
        before = self.render(messages[:turn], prompted=True)
        if text.startswith(before) and before == self.render(messages[:turn]):
            # no generation prompt: whatever stands between the turns is not the assistant's either
            before, _ = self._around(messages, turn)
        if not text.startswith(before):
            raise _rewritten(messages, turn)
        return len(before)

    def _end(self, messages: Sequence[Message], turn: int, text: str, start: int) -> int:
        """Where the next turn begins."""
        upto = self.render(messages[: turn + 1])
        if text.startswith(upto):
            return len(upto)
        # a template that writes its last turn otherwise (with an empty thought before it, say) may
        # still write content and ending of every turn alike
        _, ending = self._around(messages, turn)
        whole = messages[turn].content.strip() + ending
        if not ending.strip() or not text.startswith(whole, start):
            raise _rewritten(messages, turn)
        return start + len(whole)

    def _around(self, messages: Sequence[Message], turn: int) -> tuple[str, str]:
        """What the template writes before and after the content of a turn, if it is the last."""
        probe = [*messages[:turn], Message(messages[turn].role, _PROBE)]
        before, _, after = self.render(probe).rpartition(_PROBE)
        return before, after

    def _tokens_between(
        self, text: str, ids: list[int], spans: Sequence[Span]
    ) -> NDArray[np.bool_]:
        """The same for a tokenizer that does not say which characters a token covers."""
        counted = np.zeros(len(ids), np.bool_)
        for span in spans:
            borders = []
            for border in span:
                before = self.tokenizer(text[:border], add_special_tokens=False)["input_ids"]
                if ids[: len(before)] != before:
                    raise DistillError(
                        "a token of the tokenizer lies across the border of an assistant's turn, "
                        "and the tokenizer is a slow one, which cannot say where; give a fast one, "
                        "or leave out --assistant_only"
                    )
                borders.append(len(before))
            counted[borders[0] : borders[1]] = True
        return counted


def tokens_within(offsets: Sequence[Span], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Which tokens have a character in one of `spans`; `offsets` are each token's characters."""
    counted = np.zeros(len(offsets), np.bool_)
    if not len(offsets):
        return counted
    starts, ends = np.asarray(offsets, np.int64).T
    # tokenizers may leave blanks out of a token's characters, so it reaches back to the last one
    begins = np.minimum(starts, np.concatenate([[0], ends[:-1]]))
    for start, end in spans:
        counted |= (ends > start) & (begins < end)
    return counted


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _called(messages: Sequence[Message]) -> str:
    return f"the chat that begins {messages[0].content[:40]!r}"


def _rewritten(messages: Sequence[Message], turn: int) -> DistillError:
    return DistillError(
        "the tokenizer's chat template writes a turn otherwise when other turns follow it (message "
        f"{turn + 1} of {_called(messages)}), so what the assistant says cannot be told apart; "
        f"{_REMEDY}"
    )


def _refused(messages: Sequence[Message], problem: Exception) -> DistillError:
    reason = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DistillError(
        f"the tokenizer's chat template does not take the first {len(messages)} messages of "
        f"{_called(messages)} ({reason}); leave the chat out, or mend it"
    )
