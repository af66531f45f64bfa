"""Packed tokens of a corpus in its splits, tokenised once and memory-mapped.

Four splits by document, before packing: train, calibration (inside train), selection and test.
Documents of a split are joined, with an end-of-text token after each where the tokenizer has one,
and packed into blocks of one length.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill.checkpoint import write_directory_atomically
from distill.documents import Document
from distill.errors import DistillError
from distill.splits import split_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "selection", "test")
MINIMUM_BLOCKS = {"train": 8, "selection": 2, "test": 2}


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

    @cached_property
    def facts(self) -> dict[str, int]:
        """Documents, tokens and bytes per split, and the block length."""
        facts: dict[str, int] = json.loads((self.directory / "facts.json").read_text())
        return facts

    def blocks(self, split: str) -> NDArray[np.generic]:
        """Token ids [blocks, block] of `split`, memory-mapped."""
        tokens: NDArray[np.generic] = np.load(self.directory / f"{split}.npy", mmap_mode="r")
        return tokens

    @property
    def block(self) -> int:
        """Tokens per block."""
        return self.facts["block"]

    def calibration(self, count: int) -> NDArray[np.generic]:
        """At most `count` blocks spread evenly over the training split."""
        train = self.blocks("train")
        return train[evenly(len(train), count)]


def evenly(available: int, count: int) -> NDArray[np.int64]:
    """At most `count` distinct indices below `available`, evenly spaced."""
    return np.unique(np.linspace(0, available - 1, min(count, available)).astype(np.int64))


def split_texts(documents: Iterable[Document], sizes: SplitSizes) -> dict[str, list[str]]:
    """The texts of each split, in order.

    Documents with the same text share a split: training if one of them is trained on, since then
    none of them is held out.
    """
    documents = list(documents)
    chosen: dict[str, str] = {}
    for document in documents:
        split = split_of(document.name, sizes.selection_share, sizes.test_share)
        chosen[document.text] = min(chosen.get(document.text, split), split, key=SPLITS.index)
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document in documents:
        texts[chosen[document.text]].append(document.text)
    return texts


def pack_corpus(
    documents: Callable[[], list[Document]],
    tokenizer: "PreTrainedTokenizerBase",
    block: int,
    sizes: SplitSizes,
    directory: Path,
) -> Corpus:
    """Tokenise and pack the documents into `directory`.

    Raises DistillError for a corpus that is empty or too small for its splits.
    """
    texts = split_texts(documents(), sizes)
    if not any(texts.values()):
        raise DistillError("the corpus is empty: no document with text was found in it")
    tokens = {split: _tokenise(texts[split], tokenizer, directory.parent) for split in SPLITS}
    packed = {split: _blocks(tokens[split], block) for split in SPLITS}
    total = sum(len(blocks) for blocks in packed.values())
    for split, limit in (("selection", sizes.selection_tokens), ("test", sizes.test_tokens)):
        if limit // block < MINIMUM_BLOCKS[split]:
            raise DistillError(
                f"{split}_tokens is {limit}; it must be at least {MINIMUM_BLOCKS[split]} blocks of "
                f"{block} tokens"
            )
        wanted = min(limit // block, max(int(total * 0.05), MINIMUM_BLOCKS[split]))
        packed[split] = packed[split][evenly(len(packed[split]), wanted)]
    for split, blocks in packed.items():
        if len(blocks) < MINIMUM_BLOCKS[split]:
            raise DistillError(
                f"the corpus is too small: its {split} split has {len(blocks)} blocks of {block} "
                f"tokens ({len(texts[split])} documents) and needs {MINIMUM_BLOCKS[split]}; give "
                "more text, or a smaller --block"
            )
    facts: dict[str, int] = {"block": block}
    for split in SPLITS:
        facts[f"{split}_documents"] = len(texts[split])
        facts[f"{split}_tokens"] = int(packed[split].size)

    def fill(target: Path) -> None:
        for split, blocks in packed.items():
            np.save(target / f"{split}.npy", blocks)
        (target / "facts.json").write_text(json.dumps(facts))

    write_directory_atomically(directory, fill)
    return Corpus(directory)


def _tokenise(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", scratch: Path
) -> NDArray[np.generic]:
    """All token ids of `texts` in a row."""
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.int32
    if not texts:
        return np.zeros(0, dtype)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(rows["text"], add_special_tokens=False, verbose=False)["input_ids"]
        return {"ids": [[*row, *end] for row in ids]}

    from datasets import Dataset, disable_progress_bars  # slow; trial workers import this package

    disable_progress_bars()
    scratch.mkdir(parents=True, exist_ok=True)
    cache = Path(tempfile.mkdtemp(prefix=".tokenise-", suffix=".tmp", dir=scratch))
    try:
        rows = Dataset.from_dict({"text": texts}).map(
            encode,
            batched=True,
            batch_size=256,
            remove_columns=["text"],
            cache_file_name=str(cache / "ids.arrow"),
        )
        column = rows.data.column("ids").combine_chunks()
        flat: NDArray[np.generic] = column.flatten().to_numpy().astype(dtype)
        del rows, column
        return flat
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _blocks(tokens: NDArray[np.generic], block: int) -> NDArray[np.generic]:
    count = len(tokens) // block
    return tokens[: count * block].reshape(count, block)
