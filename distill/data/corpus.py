"""Packed tokens of a corpus in its splits, memory-mapped; `distill.data.packing` writes them.

Four splits by document, before packing: train, calibration (inside train), selection and test.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DistillError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "selection", "test")
FACTS = "facts.json"
TEXTS = "{split}.texts.jsonl"


@dataclass(frozen=True)
class SplitSizes:
    """How much of a corpus is held out."""

    selection_share: float = 0.05
    """Share of the documents that stops and ranks candidates, at most 0.05."""
    test_share: float = 0.05
    """Share of the documents that only the report reads, at most 0.05."""
    selection_tokens: int = 16_384
    """At most this many tokens of the selection split are used."""
    test_tokens: int = 32_768
    """At most this many tokens of the test split are used."""

    def __post_init__(self) -> None:
        for name in ("selection_share", "test_share"):
            if not 0 < getattr(self, name) <= 0.05:
                raise DistillError(f"{name} is {getattr(self, name)}; it must be in (0, 0.05]")
        for name in ("selection_tokens", "test_tokens"):
            if getattr(self, name) < 1:
                raise DistillError(f"{name} is {getattr(self, name)}; it must be positive")


@dataclass(frozen=True)
class Corpus:
    """A directory of packed splits; opened, never loaded."""

    directory: Path
    """Holds facts.json and a file of blocks per split."""

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Documents and tokens per split, the block length, `largest` (the largest token id in it),
        `digest` (of all that is packed) and `notes` (lines about how it was read).

        With weights, also per split: `counted_tokens`, the predictions that count, and
        `dropped_blocks`, those left out because nothing in them counts.
        """
        facts: dict[str, Any] = json.loads((self.directory / FACTS).read_text())
        return facts

    @property
    def digest(self) -> str:
        """A short name for all that is packed: tokens, and which of them count."""
        return str(self.facts["digest"])

    def blocks(self, split: str) -> NDArray[np.generic]:
        """Token ids [blocks, block] of `split`, memory-mapped."""
        tokens: NDArray[np.generic] = np.load(self.directory / f"{split}.npy", mmap_mode="r")
        return tokens

    def weights(self, split: str) -> NDArray[np.bool_] | None:
        """Whether a prediction counts, [blocks, block], memory-mapped; None where all of them do.

        Entry t is about the prediction that is made at position t, of the token at t + 1; the last
        position predicts nothing inside its block and is False.
        """
        path = self.directory / f"{split}.weights.npy"
        if not path.exists():
            return None
        weights: NDArray[np.bool_] = np.load(path, mmap_mode="r")
        return weights

    @property
    def block(self) -> int:
        """Tokens per block."""
        return int(self.facts["block"])

    def texts(self, split: str) -> list[str]:
        """Documents of a held-out split, the first of them, as they were read."""
        lines = (self.directory / TEXTS.format(split=split)).read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def require_known(self, vocabulary: int, tokenizer: "PreTrainedTokenizerBase", to: str) -> None:
        """Raises DistillError, with the token, for text that is beyond the `vocabulary`.

        That is a number of tokens, and `to` says whose.
        """
        largest = int(self.facts["largest"])
        if largest >= vocabulary:
            token = tokenizer.convert_ids_to_tokens(largest)
            raise DistillError(
                f"the corpus has the token {token!r} (number {largest}), but only "
                f"{vocabulary:,} tokens are known to {to}; take it out of the text, or "
                "give models that have an embedding for it"
            )

    def calibration(self, count: int) -> NDArray[np.generic]:
        """At most `count` blocks spread evenly over the training split."""
        train = self.blocks("train")
        return train[evenly(len(train), count)]


def evenly(available: int, count: int) -> NDArray[np.int64]:
    """At most `count` distinct indices below `available`, evenly spaced."""
    return np.unique(np.linspace(0, available - 1, min(count, available)).astype(np.int64))
