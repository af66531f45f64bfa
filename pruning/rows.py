"""Which rows of a teacher's tensor a student takes, dimension by dimension, and taking them.

A dimension is read as a few contiguous runs where the order allows (any sorted teacher), else by
index. Tensors may be larger than is good to hold twice, so they can be taken in chunks of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor as TorchTensor
from transformers import PretrainedConfig

from pruning.architecture import Architecture
from pruning.family import ORDERED, Tensor
from pruning.ordering import Ordering
from pruning.sizes import architecture_of, axis_units
from pruning.tensor_types import TENSOR_TYPES

MOST_RUNS = 64
"""Above so many runs per dimension, one gather by index is faster than their concatenation."""

Rows = slice | TorchTensor
"""Of one dimension: a contiguous run, or int64 indices."""


@dataclass(frozen=True)
class Cut:
    """A student of `teacher`, the configuration that `ordering` sorts."""

    teacher: PretrainedConfig
    ordering: Ordering
    architecture: Architecture

    @cached_property
    def whole(self) -> Architecture:
        """The teacher's."""
        return architecture_of(self.teacher)

    @cached_property
    def units(self) -> dict[str, int]:
        return axis_units(self.teacher)

    def rows(self, tensor: Tensor) -> list[Rows]:
        """The teacher's rows that the student takes, per dimension of `tensor`."""
        return [self._dimension(axes, tensor) for axes in tensor.axes]

    def _dimension(self, joined: str, tensor: Tensor) -> Rows:
        parts, start = [], 0
        for axis in joined.split("+"):
            unit = self.units[axis]
            if axis in ORDERED:
                rows = rows_of(self.kept(axis, tensor.layer, tensor.expert), unit)
                length = unit * getattr(self.whole, ORDERED[axis])
            else:
                rows, length = torch.arange(unit), unit
            parts.append(rows + start)
            start += length
        index = torch.cat(parts) if len(parts) > 1 else parts[0]
        first = int(index[0])
        if torch.equal(index, torch.arange(first, first + len(index))):
            return slice(first, first + len(index))
        return index

    def kept(self, axis: str, layer: int | None, expert: int | None = None) -> TorchTensor:
        """The units of the teacher that the student takes along `axis`, in the student's order."""
        ordering, student = self.ordering, self.architecture
        if axis == "hidden":
            return ordering.hidden[: student.hidden]
        assert layer is not None, f"axis {axis} exists only inside layers"
        if ORDERED[axis] == "heads":
            groups = ordering.heads[layer].unflatten(0, (self.whole.kv_heads, -1))
            served = student.heads // student.kv_heads
            return groups[: student.kv_heads, :served].flatten()
        if axis == "expert_ffn":
            return ordering.expert_ffn[layer, expert][: student.expert_ffn]
        order: TorchTensor = getattr(ordering, axis)[layer]
        return order[: getattr(student, axis)]


def rows_of(units: TorchTensor, width: int) -> TorchTensor:
    """The rows of these units, of `width` rows each."""
    return (units[:, None] * width + torch.arange(width)).flatten()


def count_of(rows: Rows) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def take(view: Any, rows: list[Rows]) -> TorchTensor:
    """Those rows of a safetensors slice or a tensor; reads what it is asked for.

    The result may be a strided view of a memory-mapped file: copy before changing it.
    """
    where: list[slice] = []
    split: list[tuple[int, list[tuple[int, int]]]] = []
    gathered: list[tuple[int, TorchTensor]] = []
    for dim, part in enumerate(rows):
        if isinstance(part, slice):
            where.append(part)
            continue
        where.append(slice(None))
        runs = _runs(part)
        if runs is None:
            gathered.append((dim, part))
        else:
            split.append((dim, runs))
    if not isinstance(view, TorchTensor) and len(split) == 1:
        dim, runs = split.pop()
        parts = [view[tuple(_with(where, dim, slice(*run)))] for run in runs]
        tensor = torch.cat(parts, dim)
    else:
        tensor = view[tuple(where)]
    for dim, runs in split:
        tensor = torch.cat([tensor.narrow(dim, a, b - a) for a, b in runs], dim)
    for dim, index in gathered:
        tensor = tensor.index_select(dim, index)
    return tensor


def take_in_chunks(view: Any, rows: list[Rows], chunk_bytes: int) -> Iterator[TorchTensor]:
    """Contiguous pieces of `take(view, rows)` along its first dimension, of about `chunk_bytes`."""
    shape = view.get_shape()
    whole = view
    if not isinstance(rows[0], slice) and _runs(rows[0]) is None:
        # Read from the disk once, in its order; the rows are then gathered in memory.
        whole = view[tuple(slice(None) for _ in shape)]
    width = max(1, int(torch.Size(shape[1:]).numel())) * TENSOR_TYPES[view.get_dtype()].itemsize
    step = max(1, chunk_bytes // width)
    for start in range(0, count_of(rows[0]), step):
        yield take(whole, [_part(rows[0], start, step), *rows[1:]]).contiguous()


def _part(rows: Rows, start: int, count: int) -> Rows:
    if isinstance(rows, slice):
        return slice(rows.start + start, min(rows.start + start + count, rows.stop))
    return rows[start : start + count]


def _with(where: list[slice], dim: int, part: slice) -> list[slice]:
    return [*where[:dim], part, *where[dim + 1 :]]


def _runs(index: TorchTensor) -> list[tuple[int, int]] | None:
    """Contiguous ascending runs [start, stop) of the indices; None for more than `MOST_RUNS`."""
    breaks = torch.nonzero(index.diff() != 1).flatten() + 1
    if len(breaks) >= MOST_RUNS:
        return None
    bounds = [0, *breaks.tolist(), len(index)]
    starts = zip(bounds[:-1], bounds[1:], strict=True)
    return [(int(index[a]), int(index[b - 1]) + 1) for a, b in starts]
