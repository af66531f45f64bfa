"""Perplexity and bits per byte of the test split, from cross-entropies of its sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.intervals import Interval, mean_interval
from distill import Corpus
from distill.evaluation import perplexity, text_of
from search.results.facts import MeasuredText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Language:
    """The test split as language: what its predictions are worth in bytes of text."""

    tokens: NDArray[np.int64]
    """Predictions that count [sequences]."""
    bytes: int
    """Of their text in UTF-8, without special tokens; at the ends of sequences a character may be
    cut, so that a few bytes are off."""

    @classmethod
    def of(cls, corpus: Corpus, tokenizer: "PreTrainedTokenizerBase") -> "Language":
        """Of the test split, by the tokenizer that made its tokens."""
        blocks, weights = corpus.blocks("test"), corpus.weights("test")
        tokens, size = [], 0
        for index, block in enumerate(blocks):
            counted = slice(None) if weights is None else weights[index, :-1]
            predicted = np.asarray(block[1:])[counted]
            tokens.append(len(predicted))
            size += len(text_of(predicted.tolist(), tokenizer).encode())
        return cls(np.array(tokens), size)

    @property
    def text(self) -> MeasuredText:
        """Its entry in results.json."""
        return MeasuredText(int(self.tokens.sum()), self.bytes)

    def bits_per_byte(self, losses: Sequence[NDArray[np.float64]]) -> Interval | None:
        """Of cross-entropies in nats per token, per seed the values [sequences]; None of a text
        without bytes."""
        if not self.bytes:
            return None
        share = self.tokens * len(self.tokens) / (self.bytes * log(2))
        return mean_interval([loss * share for loss in losses])


def perplexity_interval(loss: Interval) -> Interval:
    """Per token, of a cross-entropy in nats per token."""
    mean, low, high = map(perplexity, (loss.mean, loss.low, loss.high))
    return Interval(mean, low, high, loss.seeds)
