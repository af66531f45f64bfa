"""Checkpoint writing, tensor by tensor: little memory, a whole directory or none.

`safetensors.torch.save_file` wants every tensor contiguous in memory at once, which takes the
student's size in memory and half as long again.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pruning.families.checkpoint import Reader
from pruning.families.tensors import STORED_BYTES
from pruning.slicing.selection import gather_in_chunks

SHARD_BYTES = 50_000_000_000
"""Most bytes per file, as `save_pretrained` has it."""


@dataclass(frozen=True)
class TensorPlan:
    """A tensor to be written: its bytes are known before its values are read."""

    name: str
    """In the file that is written."""
    shape: tuple[int, ...]
    """Its dimensions."""
    dtype: str
    """As safetensors writes it, such as "BF16"."""
    pieces: Callable[[], Iterator[Tensor]]
    """Contiguous pieces along the first dimension."""

    @property
    def bytes(self) -> int:
        """Of its values."""
        return prod(self.shape) * STORED_BYTES[self.dtype]


def copied(reader: Reader, name: str, *, stored: str = "") -> TensorPlan:
    """A tensor of a checkpoint as it is, which may be `stored` there under another name."""
    source = stored or name
    shape = reader.shape(source)
    every = [slice(0, size) for size in shape]

    def pieces() -> Iterator[Tensor]:
        return gather_in_chunks(reader.view(source), every)

    return TensorPlan(name, shape, reader.dtype(source), pieces)


def write_tensors(
    plans: list[TensorPlan], directory: Path, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write safetensors files of at most `shard_bytes`, with an index where there are several."""
    shards: list[list[TensorPlan]] = [[]]
    size = 0
    for tensor in plans:
        if shards[-1] and size + tensor.bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    if len(shards) == 1:
        _write_file(shards[0], directory / "model.safetensors")
        return
    placement: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(shard, directory / file)
        placement |= {tensor.name: file for tensor in shard}
    total = sum(tensor.bytes for tensor in plans)
    index = {"metadata": {"total_size": total}, "weight_map": placement}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_file(tensors: list[TensorPlan], file: Path) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wider types first keeps every tensor aligned.
    ordered = sorted(tensors, key=lambda tensor: -STORED_BYTES[tensor.dtype])
    end = 0
    for tensor in ordered:
        start, end = end, end + tensor.bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        # A piece is written while the next one is gathered.
        with ThreadPoolExecutor(1) as writer:
            written = writer.submit(lambda: 0)
            for tensor in ordered:
                for piece in tensor.pieces():
                    data = piece.contiguous().flatten().view(torch.uint8).numpy().data
                    written.result()
                    written = writer.submit(target.write, data)
            written.result()
