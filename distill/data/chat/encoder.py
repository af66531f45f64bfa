"""Documents as tokens: how they begin and end, and which tokens of a chat are the assistant's.

It knows tokens; the words of a chat are the template's, which writes every special token in it.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import DistillError
from distill.data.chat.beginning import beginning_of, missing
from distill.data.chat.spans import assistant_spans
from distill.data.chat.template import ChatTemplate, Span, UnusableChat
from distill.data.chat.written import write_chat
from distill.data.documents import Document
from distill.data.long_text import LONG_CHARACTERS, parts_of
from distill.data.settings import ALWAYS, AUTO, CorpusFrom

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_TOKENISING = ("__call__", "_encode_plus", "_batch_encode_plus")
"""Methods in which a class of tokenizers may do more than its backend."""


@dataclass(frozen=True)
class Encoded:
    """A document as tokens."""

    ids: NDArray[np.int64]
    """[tokens], with the tokens that the document begins with, and the end-of-text token where one
    follows it."""
    counted: NDArray[np.bool_]
    """[tokens], whether a token is the assistant's; of a plain text every one is."""


@dataclass(frozen=True)
class Rejected:
    """A document that cannot be learned from, while others may."""

    reason: str
    """A line that says which it is and why."""


@dataclass(frozen=True)
class _Text:
    """Text of a document to tokenise."""

    text: str
    chat: bool = False
    spans: list[Span] | None = None
    """Where in it the assistant speaks; None where all of it counts."""
    assistant_last: bool = True
    """Whether what follows its end is the assistant's."""


@dataclass(frozen=True)
class Encoder:
    """Turns documents into token ids; made once per corpus by `Encoder.of`."""

    tokenizer: "PreTrainedTokenizerBase"
    """Makes the tokens."""
    spans_wanted: bool
    """Whether the assistant's tokens are looked for; else every token counts."""
    template: ChatTemplate
    """Writes the chats."""
    beginning: tuple[int, ...]
    """Tokens that a plain text begins with."""
    chat_beginning: tuple[int, ...]
    """Tokens that a chat begins with, besides those that its template writes."""
    end: tuple[int, ...]
    """The end-of-text token, if there is one."""

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        assistant_only: bool,
        *,
        bos: str = AUTO,
        day: datetime.date | None = None,
    ) -> "Encoder":
        """`bos` and `day` as in `CorpusFrom`, with its defaults.

        Raises DistillError where a BOS is always wanted and the tokenizer has none.
        """
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        added |= set(tokenizer.all_special_tokens)
        endings = tuple(sorted(token for token in added if token))
        beginning = beginning_of(tokenizer, bos)
        return cls(
            tokenizer,
            assistant_only,
            ChatTemplate(tokenizer, day or CorpusFrom().day, endings),
            beginning,
            beginning if bos == ALWAYS else (),
            () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),),
        )

    def encode(self, documents: Sequence[Document]) -> list[Encoded | Rejected]:
        """Token ids of each document, or why it has none.

        A plain text begins with the tokens that the tokenizer puts before every text (or what
        `bos` says), which count; where it is written with them, they are not put there again. An
        end-of-text token follows a plain text where the tokenizer has one, and a chat only if its
        template does not end the last turn with a token of its own; then it counts as the
        assistant's where that turn is. A token that lies across the border of the assistant's turn
        is the assistant's.
        Raises DistillError for chats without a template, and where a slow tokenizer cannot say what
        the assistant's tokens are.
        """
        rows = [self._read(document) for document in documents]
        found = self._encoded([row for row in rows if isinstance(row, _Text)])
        return [row if isinstance(row, Rejected) else next(found) for row in rows]

    def _read(self, document: Document) -> "_Text | Rejected":
        if document.messages is None:
            return _Text(document.text)
        last = document.messages[-1].role == "assistant"
        try:
            chat, text = write_chat(self.template, document)
            if not self.spans_wanted:
                return _Text(text, chat=True)
            text, spans = assistant_spans(self.template, chat, text)
        except UnusableChat as problem:
            return Rejected(str(problem))
        return _Text(text, True, spans, last)

    def _encoded(self, texts: list[_Text]) -> Iterator[Encoded]:
        """In order. Only where the assistant speaks it matters which characters a token covers."""
        located = [text.text for text in texts if text.spans is not None and self.tokenizer.is_fast]
        others = [text.text for text in texts if text.spans is None or not self.tokenizer.is_fast]
        with_offsets, ids_alone = self._with_offsets(located), self._ids(others)
        for text in texts:
            if text.spans is None:
                yield self._framed(text, next(ids_alone), None)
            elif self.tokenizer.is_fast:
                ids, offsets = next(with_offsets)
                yield self._framed(text, ids, tokens_within(offsets, text.spans))
            else:
                ids = next(ids_alone)
                yield self._framed(text, ids, self._tokens_between(text.text, ids, text.spans))

    def _ids(self, texts: list[str]) -> Iterator[list[int]]:
        if not texts:
            return iter(())
        backend = _rust(self.tokenizer)
        if backend is None:
            found = self.tokenizer(texts, add_special_tokens=False, verbose=False)
            return iter(found["input_ids"])
        # what the tokenizer does before it asks its backend for more than is wanted here
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self.tokenizer.split_special_tokens
        short = [text for text in texts if len(text) <= LONG_CHARACTERS]
        found = iter(backend.encode_batch_fast(short, add_special_tokens=False))
        return (
            next(found).ids if len(text) <= LONG_CHARACTERS else _ids_in_parts(backend, text)
            for text in texts
        )

    def _with_offsets(self, texts: list[str]) -> Iterator[tuple[list[int], list[Span]]]:
        if not texts:
            return iter(())
        found = self.tokenizer(
            texts, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        )
        return zip(found["input_ids"], found["offset_mapping"], strict=True)

    def _framed(self, text: _Text, ids: list[int], spoken: NDArray[np.bool_] | None) -> Encoded:
        """With the tokens that the document begins with, and the one that ends it."""
        before = missing(self.chat_beginning if text.chat else self.beginning, ids)
        ended = text.chat and text.text.rstrip().endswith(self.template.added)
        after = () if ended else self.end
        framed = np.asarray([*before, *ids, *after], np.int64)
        counted = np.ones(len(framed), np.bool_)
        if spoken is not None:
            counted[: len(before)] = False
            counted[len(before) : len(before) + len(ids)] = spoken
            counted[len(before) + len(ids) :] = text.assistant_last
        return Encoded(framed, counted)

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


def _rust(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer | None":
    """The Rust tokenizer of one that adds nothing of its own in Python."""
    from transformers import PreTrainedTokenizerFast

    own = [getattr(type(tokenizer), name, None) for name in _TOKENISING]
    if own != [getattr(PreTrainedTokenizerFast, name, None) for name in _TOKENISING]:
        return None
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def _ids_in_parts(backend: "Tokenizer", text: str) -> list[int]:
    def ids(part: str) -> list[int]:
        found: list[int] = backend.encode(part, add_special_tokens=False).ids
        return found

    return [each for part in parts_of(text, ids) for each in ids(part)]


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
