"""Files of one split: tokens that grow, and the blocks that are chosen of them in the end."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distill.data.chat.encoder import Encoded
from distill.data.corpus import TEXTS
from distill.data.documents import Document

COPIED_BLOCKS = 4096
"""Blocks copied at a time."""
TEXT_BYTES = 4_000_000
"""Text of each held-out split that is kept beside its tokens, for tasks that ask about it."""


class SplitFiles:
    """Tokens of one split on their way, before some of its blocks are chosen."""

    def __init__(
        self, name: str, folder: Path, *, dtype: np.dtype[Any], block: int, weighted: bool
    ):
        self.name, self.dtype, self.block = name, dtype, block
        self.files = {"ids": folder / f"{name}.ids", "texts": folder / TEXTS.format(split=name)}
        self.weighted = weighted
        if weighted:
            self.files["counted"] = folder / f"{name}.counted"
        self.tokens = self.documents = self.counting = 0
        self.last_counting = -1
        self._open: dict[str, IO[bytes]] = {}

    @property
    def kept(self) -> int:
        """Whole blocks in which a prediction counts."""
        if not self.weighted:
            return self.tokens // self.block
        return self.counting - (self.last_counting == self.tokens // self.block)

    def open(self, stack: ExitStack, state: dict[str, Any] | None) -> None:
        """Go on after the last document of the state, or begin."""
        sizes = state["sizes"] if state else dict.fromkeys(self.files, 0)
        for kind, path in self.files.items():
            path.touch()
            file = stack.enter_context(path.open("r+b"))
            file.truncate(sizes[kind])
            file.seek(0, 2)
            self._open[kind] = file
        if state:
            self.tokens, self.documents = state["tokens"], state["documents"]
            self.counting, self.last_counting = state["counting"], state["last_counting"]

    def state(self) -> dict[str, Any]:
        """State for a later start to go on from; everything before it is in the files."""
        for file in self._open.values():
            file.flush()
        return {
            "sizes": {kind: file.tell() for kind, file in self._open.items()},
            "tokens": self.tokens,
            "documents": self.documents,
            "counting": self.counting,
            "last_counting": self.last_counting,
        }

    def holds(self, state: dict[str, Any]) -> bool:
        """Whether the files have at least what the state knows of."""
        return all(
            path.exists() and path.stat().st_size >= state["sizes"][kind]
            for kind, path in self.files.items()
        )

    def add(self, document: Document, row: Encoded) -> None:
        """Put the tokens of a document at the end."""
        self._open["ids"].write(row.ids.astype(self.dtype).tobytes())
        if self.weighted:
            self._open["counted"].write(row.counted.tobytes())
            at = self.tokens + np.flatnonzero(row.counted)
            blocks = np.unique(at[at % self.block > 0] // self.block)
            blocks = blocks[blocks > self.last_counting]
            self.counting += len(blocks)
            self.last_counting = int(blocks[-1]) if len(blocks) else self.last_counting
        self.tokens += len(row.ids)
        self.documents += 1
        texts = self._open["texts"]
        if self.name != "train" and texts.tell() < TEXT_BYTES:
            texts.write(json.dumps(document.text).encode() + b"\n")

    def chosen(self) -> NDArray[np.int64]:
        """The blocks in which a prediction counts."""
        for file in self._open.values():
            file.flush()
        every = np.arange(self.tokens // self.block)
        if not self.weighted:
            return every
        parts = self._read("counted", np.dtype(np.bool_), every)
        counting = [part[:, 1:].any(1) for part in parts]
        return np.flatnonzero(np.concatenate(counting)) if counting else every

    def _read(
        self, kind: str, dtype: np.dtype[Any], blocks: NDArray[np.int64]
    ) -> Iterator[NDArray[Any]]:
        """The blocks, some at a time; not memory-mapped, which would count as memory."""
        size = self.block * dtype.itemsize
        with self.files[kind].open("rb") as file:
            for start in range(0, len(blocks), COPIED_BLOCKS):
                part = blocks[start : start + COPIED_BLOCKS]
                if part[-1] - part[0] == len(part) - 1:
                    file.seek(int(part[0]) * size)
                    data = file.read(size * len(part))
                else:
                    data = b"".join(_at(file, int(block) * size, size) for block in part)
                yield np.frombuffer(data, dtype).reshape(len(part), self.block)

    def write(self, blocks: NDArray[np.int64], target: Path, digest: Any) -> dict[str, int]:
        """Write the blocks; returns facts about them."""
        largest = 0
        with (target / f"{self.name}.npy").open("wb") as file:
            _header(file, self.dtype, (len(blocks), self.block))
            for part in self._read("ids", self.dtype, blocks):
                largest = max(largest, int(part.max()))
                file.write(part.data)
                digest.update(part)
        facts = {"documents": self.documents, "tokens": len(blocks) * self.block}
        if self.weighted:
            facts["counted_tokens"] = self._write_weights(blocks, target, digest)
            facts["dropped_blocks"] = self.tokens // self.block - self.kept
        if self.name != "train":
            shutil.copyfile(self.files["texts"], target / TEXTS.format(split=self.name))
        return {**facts, "largest": largest}

    def _write_weights(self, blocks: NDArray[np.int64], target: Path, digest: Any) -> int:
        total = 0
        with (target / f"{self.name}.weights.npy").open("wb") as file:
            _header(file, np.dtype(np.bool_), (len(blocks), self.block))
            for part in self._read("counted", np.dtype(np.bool_), blocks):
                weights = np.zeros_like(part)
                weights[:, :-1] = part[:, 1:]
                total += int(weights.sum())
                file.write(weights.data)
                digest.update(weights)
        return total


def _at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
