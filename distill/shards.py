"""Shards of arrays on disk: whole or absent, each with the checksums of its files.

A shard is a directory of `.npy` files, read memory-mapped, and `checksums.json`. What is in the
arrays is no matter here.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.checkpoint import write_directory_atomically
from distill.errors import DistillError

CHECKSUMS = "checksums.json"
Arrays = dict[str, NDArray[Any]]


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


def fault(folder: Path) -> str | None:
    """What is wrong with a shard, or None: reads every byte of it.

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
    if problem := fault(folder):
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
