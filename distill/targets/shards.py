"""Shards of arrays on disk: whole or absent, each with the checksums of its files.

A shard is a directory of `.npy` files, read memory-mapped, and `checksums.json`. The arrays are
opaque to this module.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DistillError
from common.files import write_directory_atomically

CHECKSUMS = "checksums.json"
NEXT = "next"
"""Name of the array that every shard has, with a row for each of its slots."""
Arrays = dict[str, NDArray[Any]]
"""Arrays by name."""


def write_shard(folder: Path, pieces: Sequence[Arrays]) -> None:
    """Write the arrays of `pieces`, joined along the first dimension, in place of `folder`."""

    def fill(directory: Path) -> None:
        sums = {
            name: _write_array(directory / f"{name}.npy", [piece[name] for piece in pieces])
            for name in pieces[0]
        }
        (directory / CHECKSUMS).write_text(json.dumps({"blake2b": sums}))

    write_directory_atomically(folder, fill)


def _write_array(path: Path, pieces: Sequence[NDArray[Any]]) -> str:
    """Write one array piece by piece, without a copy of the whole; returns its checksum."""
    shape = (sum(len(piece) for piece in pieces), *pieces[0].shape[1:])
    header = {
        "descr": np.lib.format.dtype_to_descr(pieces[0].dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            np.ascontiguousarray(piece).tofile(file)
        file.seek(0)
        return hashlib.file_digest(file, _digest).hexdigest()


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def validate_shard(folder: Path) -> str | None:
    """The fault of a shard, or None: reads every byte of it.

    The sentence names the shard, and goes on after "the targets in".
    """
    if not folder.exists():
        return f"{folder} are missing"
    try:
        sums = json.loads((folder / CHECKSUMS).read_text())["blake2b"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder} have no checksums"
    if not sums or {path.stem for path in folder.glob("*.npy")} != set(sums):
        return f"{folder} are not complete"
    for name, wanted in sums.items():
        with (folder / f"{name}.npy").open("rb") as file:
            if hashlib.file_digest(file, _digest).hexdigest() != wanted:
                return f"{folder} are damaged ({name}.npy does not have its checksum)"
    return None


def open_shard(folder: Path) -> Arrays:
    """The arrays of a shard, memory-mapped.

    Raises DistillError where it is missing or is not what was written.
    """
    if problem := validate_shard(folder):
        raise DistillError(
            f"the targets in {problem}; write them again with the same command, which keeps the "
            "other shards"
        )
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}


def array_shape(folder: Path, name: str) -> tuple[int, ...] | None:
    """The shape of one array of a shard; None without that array."""
    try:
        array = np.load(folder / f"{name}.npy", mmap_mode="r")
    except (OSError, ValueError):
        return None
    shape: tuple[int, ...] = array.shape
    return shape


class ShardSeries:
    """Shards 0, 1, ... of a directory, as arrays over slots: shard i holds the i-th `slots_each`.

    A shard is checked and opened when it is first read. Reading raises DistillError where it is
    missing or damaged.
    """

    def __init__(self, directory: Path, slots_each: int):
        self.directory, self.slots_each = directory, slots_each
        self._opened: dict[int, Arrays] = {}
        self._starts: dict[int, NDArray[np.int64]] = {}
        """Of ragged arrays, by shard: where the entries of each slot begin, and the end."""

    def folder(self, index: int) -> Path:
        """Directory of a shard."""
        return self.directory / f"{index:05d}"

    def rows(self, name: str, slots: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of `slots` of an array with one row per slot, [slots, ...]."""
        places = [divmod(int(slot), self.slots_each) for slot in slots]
        return np.stack([self._shard(index)[name][row] for index, row in places])

    def entries(self, name: str, slots: NDArray[np.int64]) -> NDArray[Any]:
        """The entries of `slots`, one after the other, of an array [entries].

        The array `lengths` says how many entries a slot has.
        """
        pieces = []
        for slot in slots:
            index, row = divmod(int(slot), self.slots_each)
            array = self._shard(index)[name]
            start, stop = self._starts_of(index)[row : row + 2]
            pieces.append(array[start:stop])
        return np.concatenate(pieces)

    def _shard(self, index: int) -> Arrays:
        if index not in self._opened:
            self._opened[index] = open_shard(self.folder(index))
        return self._opened[index]

    def _starts_of(self, index: int) -> NDArray[np.int64]:
        if index not in self._starts:
            entries = self._shard(index)["lengths"].sum(-1, dtype=np.int64)
            self._starts[index] = np.concatenate([[0], entries.cumsum()])
        return self._starts[index]
