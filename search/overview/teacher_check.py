"""Check of the teacher on the user's text, before anything is computed with it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill import Corpus
from distill.evaluation import perplexity, text_loss
from pruning import architecture_of
from pruning.families import forward_flops

SECONDS = 2.0
"""Time after which no more text is read for the check."""
HARDLY_KNOWN = 0.75
"""Share of a guess's cross-entropy from which on a teacher hardly knows its text: what is trained
on a language is below a half of it on any text of that language."""
MANY_UNKNOWN = 0.01
"""Share of unknown tokens that is said."""
SMALL_TOKENIZER = 0.5
"""Share of the teacher's vocabulary below which the tokenizer looks like another model's."""
LOOKED_AT = 64
"""Training sequences in which unknown tokens are counted."""


@dataclass(frozen=True)
class TeacherReading:
    """A few sequences of the selection split, read by the teacher."""

    cross_entropy: float
    """Nats per token."""
    tokens: int
    """How many were read."""
    flops_per_second: float
    """How fast it reads."""

    @classmethod
    def of(cls, model: Any, corpus: Corpus) -> "TeacherReading":
        """Read for some seconds; the first sequence, with which kernels are chosen, is not timed
        where there are others in time."""
        blocks, weights = corpus.blocks("selection"), corpus.weights("selection")
        losses: list[float] = []
        began = first = time.monotonic()
        for index in range(len(blocks)):
            one = slice(index, index + 1)
            counted = None if weights is None else weights[one]
            losses += text_loss(model, blocks[one], weights=counted).tolist()
            now = time.monotonic()
            first = now if index == 0 else first
            if now - began > SECONDS:
                break
        timed = len(losses) - 1 or 1
        seconds = (now - first) if len(losses) > 1 else now - began
        config = model.config.get_text_config()
        flops = float(forward_flops(config, architecture_of(config), corpus.block))
        speed = timed * corpus.block * flops / max(seconds, 1e-9)
        return cls(float(np.nanmean(losses)), len(losses) * corpus.block, speed)


def teacher_lines(
    reading: TeacherReading, *, vocabulary: int, tokenizer: Any, corpus: Corpus
) -> Iterator[str]:
    """What is said of the teacher: its perplexity beside that of a guess, and what looks wrong."""
    ce, guess = reading.cross_entropy, math.log(vocabulary)
    yield (
        f"teacher: perplexity {shown_perplexity(ce)} on {reading.tokens:,} tokens of the selection "
        f"split; a guess among its {vocabulary:,} tokens has {vocabulary:,}"
    )
    if not ce < HARDLY_KNOWN * guess:
        yield (
            "warning: the teacher hardly knows this text, and its students will learn little from "
            "it: look whether --corpus is text of the kind that the teacher was trained on, and "
            "whether its tokenizer is its own; --correction.tokens fine-tunes it on the text first"
        )
    yield from _of_tokenizer(vocabulary, tokenizer, corpus)


def shown_perplexity(cross_entropy: float) -> str:
    """To about three digits."""
    value = perplexity(cross_entropy)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _of_tokenizer(vocabulary: int, tokenizer: Any, corpus: Corpus) -> Iterator[str]:
    """Signs that the tokenizer is another model's, or not made for the text."""
    size = len(tokenizer)
    if size < SMALL_TOKENIZER * vocabulary:
        yield (
            f"warning: the tokenizer has {size:,} tokens, the teacher {vocabulary:,}: look whether "
            "it is the teacher's own"
        )
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    share = float(np.mean(np.asarray(corpus.blocks("train")[:LOOKED_AT]) == unknown))
    if share > MANY_UNKNOWN:
        yield (
            f"warning: {share:.1%} of the text is the unknown token {tokenizer.unk_token!r}: the "
            "tokenizer was not made for this text"
        )
