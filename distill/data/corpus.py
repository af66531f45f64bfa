"""Packed tokens of a corpus in its splits, tokenised once and memory-mapped.

Four splits by document, before packing: train, calibration (inside train), selection and test.
Documents of a split are joined, with an end-of-text token after each where the tokenizer has one
and the document does not end itself (as most chats do), and packed into blocks of one length.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.checkpoint import write_directory_atomically
from distill.data.chat import Encoder, Rejected
from distill.data.documents import Document
from distill.data.splits import split_of
from distill.errors import DistillError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "selection", "test")
MINIMUM_BLOCKS = {"train": 8, "selection": 2, "test": 2}
BATCH_DOCUMENTS = 256
"""Documents tokenised at a time."""
COPIED_BLOCKS = 4096
"""Blocks copied at a time."""


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
        """Documents and tokens per split, and the block length.

        With weights, also per split: `counted_tokens`, the predictions that count, and
        `dropped_blocks`, those left out because nothing in them counts.
        """
        facts: dict[str, int] = json.loads((self.directory / "facts.json").read_text())
        return facts

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
        return self.facts["block"]

    def require_known(self, vocabulary: int, tokenizer: "PreTrainedTokenizerBase", to: str) -> None:
        """Raises DistillError, with the token, for text that is beyond the `vocabulary`.

        That is a number of tokens, and `to` says whose.
        """
        for split in SPLITS:
            blocks = self.blocks(split)
            for part in _parts(len(blocks)):
                largest = int(blocks[part].max())
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


def split_texts(documents: Iterable[Document], sizes: SplitSizes) -> dict[str, list[str]]:
    """The texts of each split, in order, as `split_documents` has them."""
    split = split_documents(documents, sizes)
    return {name: [document.text for document in found] for name, found in split.items()}


def split_documents(documents: Iterable[Document], sizes: SplitSizes) -> dict[str, list[Document]]:
    """The documents of each split, in order.

    Documents with the same text share a split: training if one of them is trained on, since then
    none of them is held out.
    """
    documents = list(documents)
    chosen: dict[str, str] = {}
    for document in documents:
        split = split_of(document.name, sizes.selection_share, sizes.test_share)
        chosen[document.text] = min(chosen.get(document.text, split), split, key=SPLITS.index)
    found: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        found[chosen[document.text]].append(document)
    return found


def pack_corpus(
    documents: Callable[[], list[Document]],
    tokenizer: "PreTrainedTokenizerBase",
    block: int,
    sizes: SplitSizes,
    directory: Path,
    assistant_only: bool = False,
) -> Corpus:
    """Tokenise and pack the documents into `directory`.

    Chats are written by the tokenizer's own template. With `assistant_only` the corpus has weights:
    of a chat only what the assistant says counts, of a plain text everything, and blocks in which
    nothing counts are left out of every split.
    Raises DistillError for a corpus that is empty or too small for its splits, for chats that the
    tokenizer's template does not take, and where the assistant's tokens are wanted but there are no
    chats or the template does not show them.
    """
    found = split_documents(documents(), sizes)
    if not any(found.values()):
        raise DistillError("the corpus is empty: no document with text was found in it")
    chats = any(document.messages for split in found.values() for document in split)
    if assistant_only and not chats:
        raise DistillError(
            "--assistant_only is set, but the corpus has no chats (rows with 'messages'); leave it "
            "out, or give a corpus of chats"
        )
    encoder = Encoder.of(tokenizer, assistant_only)
    scratch = _scratch(directory.parent)
    try:
        packed = {
            split: _Packed.of(found[split], encoder, block, scratch / split) for split in SPLITS
        }
        chosen = _chosen(packed, sizes, block)
        for split, kept in chosen.items():
            if len(kept) < MINIMUM_BLOCKS[split]:
                raise _too_small(split, len(kept), packed[split], len(found[split]))

        def fill(target: Path) -> None:
            facts = {"block": block}
            for split, kept in chosen.items():
                facts[f"{split}_documents"] = len(found[split])
                facts[f"{split}_tokens"] = len(kept) * block
                counted = packed[split].write(kept, target, split)
                if counted is not None:
                    facts[f"{split}_counted_tokens"] = counted
                    facts[f"{split}_dropped_blocks"] = packed[split].dropped
            (target / "facts.json").write_text(json.dumps(facts))

        write_directory_atomically(directory, fill)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Corpus(directory)


def _chosen(
    packed: "dict[str, _Packed]", sizes: SplitSizes, block: int
) -> dict[str, NDArray[np.int64]]:
    """Per split the blocks that are written: all for training, some, evenly spread, held out."""
    chosen = {split: packed[split].kept for split in SPLITS}
    total = sum(len(kept) for kept in chosen.values())
    for split, limit in (("selection", sizes.selection_tokens), ("test", sizes.test_tokens)):
        if limit // block < MINIMUM_BLOCKS[split]:
            raise DistillError(
                f"{split}_tokens is {limit}; it must be at least {MINIMUM_BLOCKS[split]} blocks of "
                f"{block} tokens"
            )
        wanted = min(limit // block, max(int(total * 0.05), MINIMUM_BLOCKS[split]))
        chosen[split] = chosen[split][evenly(len(chosen[split]), wanted)]
    return chosen


def _scratch(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".tokenise-", suffix=".tmp", dir=parent))


def _too_small(split: str, blocks: int, packed: "_Packed", documents: int) -> DistillError:
    block = packed.tokens.shape[1]
    dropped = f", {packed.dropped} more in which no token counts" if packed.dropped else ""
    return DistillError(
        f"the corpus is too small: its {split} split has {blocks} blocks of {block} tokens "
        f"({documents} documents{dropped}) and needs {MINIMUM_BLOCKS[split]}; give more text, or a "
        "smaller --block"
    )


@dataclass(frozen=True)
class _Packed:
    """The blocks of a split in files, before some of them are chosen."""

    tokens: NDArray[np.generic]
    """[blocks, block]."""
    counted: NDArray[np.bool_] | None
    """[blocks, block], whether the token itself counts; None where all do."""
    kept: NDArray[np.int64]
    """The blocks in which a prediction counts."""

    @classmethod
    def of(cls, documents: list[Document], encoder: Encoder, block: int, path: Path) -> "_Packed":
        """Tokenise `documents` a batch at a time, so that memory does not grow with them."""
        largest = max(encoder.tokenizer.get_vocab().values())  # numbers may be left out
        dtype = np.dtype(np.uint16 if largest < 2**16 else np.int32)
        files = [path.with_suffix(".ids")]
        if encoder.spans_wanted:
            files.append(path.with_suffix(".counted"))
        with ExitStack() as stack:
            ids, *counts = [stack.enter_context(file.open("wb")) for file in files]
            for start in range(0, len(documents), BATCH_DOCUMENTS):
                for row in encoder.encode(documents[start : start + BATCH_DOCUMENTS]):
                    if isinstance(row, Rejected):
                        raise DistillError(row.reason)
                    ids.write(row.ids.astype(dtype).tobytes())
                    for file in counts:
                        file.write(row.counted.tobytes())
        tokens = _blocks(files[0], dtype, block)
        if not encoder.spans_wanted:
            return cls(tokens, None, np.arange(len(tokens)))
        counted = _blocks(files[1], np.dtype(np.bool_), block)
        return cls(tokens, counted, np.flatnonzero(counted[:, 1:].any(1)))

    @property
    def dropped(self) -> int:
        return len(self.tokens) - len(self.kept)

    def write(self, chosen: NDArray[np.int64], directory: Path, split: str) -> int | None:
        """Write the blocks `chosen`; returns how many predictions in them count, if not all do."""
        shape = (len(chosen), self.tokens.shape[1])
        ids = np.lib.format.open_memmap(directory / f"{split}.npy", "w+", self.tokens.dtype, shape)
        for part in _parts(len(chosen)):
            ids[part] = self.tokens[chosen[part]]
        ids.flush()
        if self.counted is None:
            return None
        path = directory / f"{split}.weights.npy"
        weights = np.lib.format.open_memmap(path, "w+", np.dtype(np.bool_), shape)
        total = 0
        for part in _parts(len(chosen)):
            weights[part, :-1] = self.counted[chosen[part], 1:]
            weights[part, -1] = False
            total += int(weights[part].sum())
        weights.flush()
        return total


def _parts(count: int) -> list[slice]:
    return [slice(at, at + COPIED_BLOCKS) for at in range(0, count, COPIED_BLOCKS)]


def _blocks(path: Path, dtype: np.dtype[Any], block: int) -> NDArray[Any]:
    """[blocks, block] of the values in a file, memory-mapped, without the rest at its end."""
    count = path.stat().st_size // dtype.itemsize // block
    if not count:
        return np.zeros((0, block), dtype)
    return np.memmap(path, dtype, "r", shape=(count, block))
