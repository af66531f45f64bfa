"""Pieces of a text that all models are measured on, each from its beginning.

Models with other tokenizers read the same characters, so that bits per byte can be compared, and
differences are paired piece by piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DistillError
from common.fingerprint import fingerprint
from distill import read_documents
from distill.data import split_of
from experiments.evaluation.config import ALL, EvaluateConfig
from experiments.evaluation.measuring.contenders import Contender

MOST_QUESTION_TEXTS = 1_000
"""Documents that questions are built from, at most."""


@dataclass(frozen=True)
class Pieces:
    """A text in pieces."""

    texts: tuple[str, ...]
    """The pieces."""
    block: int
    """Tokens that a model reads at once."""

    @cached_property
    def key(self) -> str:
        """A short name for all of it."""
        return fingerprint(self.texts, self.block)


@dataclass(frozen=True)
class Windows:
    """Tokens of the pieces as one model reads them; each is predicted once."""

    read: NDArray[np.int64]
    """[windows, block], filled up with 0."""
    following: NDArray[np.int64]
    """The token after each."""
    counted: NDArray[np.bool_]
    """Which predictions count: not those of what a text begins with, nor what is filled up."""
    piece: NDArray[np.int64]
    """The piece of each window [windows]."""
    bytes: NDArray[np.int64]
    """Bytes that are predicted, by piece."""


def read_texts(config: EvaluateConfig) -> Iterator[str]:
    """Texts of the documents, in the order in which they are read.

    Raises DistillError for what cannot be read, for chats, and where there is none.
    """
    assert config.corpus is not None, "the caller asks whether there is one"
    documents = read_documents(config.corpus, config.corpus_files, config.corpus_from)
    for document in documents:
        if document.messages is not None:
            raise DistillError(
                f"{document.place} of --corpus is a chat, and models are measured on plain text; "
                "give a text"
            )
        if config.split == ALL or split_of(document.name, 0.05, 0.05) == config.split:
            yield document.text


def question_texts(config: EvaluateConfig) -> list[str]:
    """Texts that questions are built from."""
    return list(islice(read_texts(config), MOST_QUESTION_TEXTS))


def read_pieces(config: EvaluateConfig, reference: Contender, block: int) -> Pieces:
    """Pieces of whole lines, as long as the reference can read at once.

    Raises DistillError where there is no text.
    """
    room = block - len(reference.beginning)
    pieces: list[str] = []
    left = config.tokens
    for text in read_texts(config):
        for piece, size in _pieces_of(text, reference, room):
            if left <= 0:
                break
            pieces.append(piece)
            left -= size
        if left <= 0:
            break
    if not pieces:
        raise DistillError(
            "--corpus has no documents in its test split; give --split all for a text that no "
            "model was trained on"
        )
    return Pieces(tuple(pieces), block)


def _pieces_of(text: str, reference: Contender, room: int) -> Iterator[tuple[str, int]]:
    """(piece, its tokens or somewhat more)."""
    lines = text.splitlines(keepends=True)
    rows: Any = reference.tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]
    held, size = list[str](), 0
    for line, row in zip(lines, rows, strict=True):
        if held and size + len(row) > room:
            yield "".join(held), size
            held, size = [], 0
        held.append(line)
        size += len(row)
    if any(line.strip() for line in held):
        yield "".join(held), size


def windows_of(pieces: Pieces, contender: Contender) -> Windows:
    """The pieces as tokens of this model, in windows of its block.

    A piece of more tokens goes on in another window, whose first token is the last of the one
    before, so that each token is predicted once.
    """
    tokenizer, block, begin = contender.tokenizer, pieces.block, contender.beginning
    rows: Any = tokenizer(list(pieces.texts), add_special_tokens=False, verbose=False)["input_ids"]
    parts: list[tuple[list[int], int, int]] = []  # tokens with the one after, first counted, piece
    sizes = []
    for number, (text, row) in enumerate(zip(pieces.texts, rows, strict=True)):
        whole = [*begin, *row]
        first = max(1, len(begin))
        known = "" if begin else str(tokenizer.decode(row[:1]))
        sizes.append(len(text.encode()) - len(known.encode()))
        for start in range(0, max(1, len(whole) - 1), block):
            parts.append((whole[start : start + block + 1], max(0, first - 1 - start), number))
    return _filled(parts, block, sizes)


def not_kept(pieces: Pieces, contender: Contender) -> int:
    """Pieces that the tokens of this model do not write back as they were: something of them is not
    predicted."""
    tokenizer = contender.tokenizer
    rows: Any = tokenizer(list(pieces.texts), add_special_tokens=False, verbose=False)["input_ids"]
    again = tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
    return sum(text != other for text, other in zip(pieces.texts, again, strict=True))


def _filled(
    parts: Sequence[tuple[list[int], int, int]], block: int, sizes: Sequence[int]
) -> Windows:
    longest = min(block, max(len(tokens) for tokens, _, _ in parts))
    read = np.zeros((len(parts), longest), np.int64)
    following, counted = np.zeros_like(read), np.zeros(read.shape, bool)
    for row, (tokens, first, _) in enumerate(parts):
        count = len(tokens) - 1
        read[row, :count], following[row, :count] = tokens[:-1], tokens[1:]
        counted[row, first:count] = True
    piece = np.array([number for _, _, number in parts])
    return Windows(read, following, counted, piece, np.array(sizes))
