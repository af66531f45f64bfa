"""Selections: the part of each of the teacher's tensors that a student takes, and gathering it.

A dimension is read as a few contiguous runs where the order allows (any sorted teacher), else by
index. Tensors may be larger than is good to hold twice, so they can be gathered in chunks of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture
from pruning.families.block import ATTENTION, Block
from pruning.families.kinds import STAYS
from pruning.families.legality import check_architecture, check_cuttable, check_kind
from pruning.families.shapes import (
    architecture_of,
    axis_rows,
    dimension_rows,
    in_order,
    kinds_of,
)
from pruning.families.table import expert_groups, family_of
from pruning.families.tensors import TENSOR_TYPES
from pruning.families.words import AxisRows, TensorSpec
from pruning.importance.ordering import Ordering

CHUNK_BYTES = 32 << 20
MOST_RUNS = 64
"""Above so many runs per dimension, one gather by index is faster than their concatenation."""

Selection = slice | Tensor
"""Of one dimension: a contiguous run, or int64 indices."""


@dataclass(frozen=True)
class Slice:
    """A student as a part of its teacher: its sizes, and which units and layers those are."""

    teacher: PretrainedConfig
    """Configuration of the model that is cut."""
    ordering: Ordering
    """Order of its units, the ones to keep first."""
    architecture: Architecture
    """The student's sizes."""
    kept_layers: Sequence[int]
    """The teacher's layers that the student has, in order."""

    @classmethod
    def of(
        cls,
        teacher: PretrainedConfig,
        architecture: Architecture,
        *,
        kept_layers: Sequence[int],
        ordering: Ordering | None = None,
    ) -> "Slice":
        """A slice that can be cut out; without `ordering`, `teacher` is a sorted teacher.

        Raises:
            PruningError: The architecture cannot be cut out, or the layers do not fit it.
        """
        check_architecture(teacher, architecture)
        whole = architecture_of(teacher)
        if not in_order(kept_layers, whole.layers) or len(kept_layers) != architecture.layers:
            raise PruningError(
                f"the layers to keep are {list(kept_layers)}; {architecture} needs "
                f"{architecture.layers} different ones between 0 and {whole.layers - 1}, in order"
            )
        for layer, block in zip(kept_layers, architecture.blocks, strict=False):
            check_kind(teacher, layer, block=block)
        kinds = kinds_of(teacher)
        if not any(ATTENTION in kinds[layer] for layer in kept_layers):
            raise PruningError(
                f"the layers to keep are {list(kept_layers)}, none of which has attention; keep "
                f"one of {[layer for layer, kind in enumerate(kinds) if ATTENTION in kind]} too"
            )
        always = [layer for layer, kind in enumerate(kinds) if STAYS in kind]
        if not set(always) <= set(kept_layers):
            raise PruningError(
                f"the layers to keep are {list(kept_layers)}; every student of this "
                f"{teacher.model_type} keeps {always}"
            )
        ordering = Ordering.identity(whole) if ordering is None else ordering
        return cls(teacher, ordering, architecture, kept_layers)

    @classmethod
    def whole(cls, teacher: PretrainedConfig, ordering: Ordering) -> "Slice":
        """All of the teacher, in another order. Raises PruningError where it cannot be cut."""
        check_cuttable(teacher)
        sizes = architecture_of(teacher)
        return cls(teacher, ordering, sizes, range(sizes.layers))

    @cached_property
    def teacher_sizes(self) -> Architecture:
        """The teacher's architecture."""
        return architecture_of(self.teacher)

    @cached_property
    def rows(self) -> dict[str, AxisRows]:
        """The rows that each axis takes in the teacher's tensors."""
        return axis_rows(self.teacher)

    def tensors(self) -> Iterator[tuple[str, TensorSpec]]:
        """(name in the student, tensor of the teacher that it is cut out of) of every tensor."""
        family, config = family_of(self.teacher), self.teacher
        for name, axes in family.outer_axes(config).items():
            yield name, TensorSpec(name, axes)
        for index, layer in enumerate(self.kept_layers):
            block = self.architecture.block(index)
            for name, axes in family.block_axes(config, layer, block=block).items():
                source, target = family.layer_tensor(layer, name), family.layer_tensor(index, name)
                if "{expert}" not in name:
                    yield target, TensorSpec(source, axes, layer)
                    continue
                for new, old in enumerate(self.kept("experts", layer).tolist()):
                    old_name = source.replace("{expert}", str(old))
                    new_name = target.replace("{expert}", str(new))
                    yield new_name, TensorSpec(old_name, axes, layer, old)

    def block(self, layer: int) -> Block:
        """The student's sizes of the teacher's `layer`."""
        return self.architecture.block(self._index[layer])

    def selection(self, tensor: TensorSpec) -> list[Selection]:
        """What the student takes of a `tensor` of the teacher, per dimension."""
        return [self._dimension(axes, tensor) for axes in tensor.axes]

    def pieces(self, tensor: TensorSpec) -> list[list[Selection]]:
        """As `selection`, in pieces that are put one below the other: of a tensor of all experts
        one each, since every expert has an order of its own."""
        if not self._of_all_experts(tensor):
            return [self.selection(tensor)]
        of_one = [
            replace(tensor, axes=tensor.axes[1:], expert=expert)
            for expert in self.kept("experts", tensor.layer).tolist()
        ]
        return [
            [slice(one.expert, one.expert + 1), *self.selection(one)]
            for one in of_one
            if one.expert is not None
        ]

    def shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Of what the student takes of a `tensor` of the teacher."""
        if not tensor.axes:  # a single number
            return ()
        pieces = self.pieces(tensor)
        rows = sum(count_of(piece[0]) for piece in pieces)
        return rows, *(count_of(part) for part in pieces[0][1:])

    def gather(self, view: Any, tensor: TensorSpec) -> Tensor:
        """What the student takes of a `tensor` of the teacher, whose `view` is as in `gather`."""
        found = [gather(view, piece) for piece in self.pieces(tensor)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def _of_all_experts(self, tensor: TensorSpec) -> bool:
        if tensor.layer is None or tensor.expert is not None or not tensor.axes:
            return False
        family = family_of(self.teacher)
        return family.of_experts(family.name_in_layer(tensor), tensor.axes)

    def _dimension(self, joined: str, tensor: TensorSpec) -> Selection:
        parts, start = [], 0
        for axis in joined.split("+"):
            rows, length = self._rows_of(axis, tensor)
            parts.append(rows + start)
            start += length
        index = torch.cat(parts) if len(parts) > 1 else parts[0]
        first = int(index[0])
        if torch.equal(index, torch.arange(first, first + len(index))):
            return slice(first, first + len(index))
        return index

    def _rows_of(self, name: str, tensor: TensorSpec) -> tuple[Tensor, int]:
        """The rows that the student takes along an axis, and how many the teacher has."""
        if name.isdecimal():
            return torch.arange(int(name)), int(name)
        axis = self.rows[name]
        if axis.joined:
            return self._grouped(axis, tensor), self._length(axis.joined)
        length = self._length(name)
        if not axis.size:
            return torch.arange(length), length
        if axis.within:
            return self._nested(axis, tensor), length
        units = self.kept(axis.size, tensor.layer, expert=tensor.expert)
        return rows_of(units, axis.rows), length

    def _length(self, dim: str) -> int:
        """Rows of the teacher along axes that are joined."""
        return int(dimension_rows(self.teacher_sizes, dim, rows=self.rows))

    def _grouped(self, axis: AxisRows, tensor: TensorSpec) -> Tensor:
        """The rows of axes that lie beside each other in each group."""
        groups: int = getattr(self.architecture, axis.size)
        taken, start = [], 0
        width = self._length(axis.joined) // getattr(self.teacher_sizes, axis.size)
        for name in axis.joined.split("+"):
            rows, length = self._rows_of(name, tensor)
            each = length // getattr(self.teacher_sizes, axis.size)
            inside = rows // each * width + start + rows % each
            taken.append(inside.unflatten(0, (groups, -1)))
            start += each
        return torch.cat(taken, dim=1).flatten()

    def _nested(self, axis: AxisRows, tensor: TensorSpec) -> Tensor:
        """The rows of an axis each of whose units has an order of its own inside."""
        assert tensor.layer is not None, "recurrent states exist only inside layers"
        units = self.kept(axis.size, tensor.layer)
        inside: Tensor = getattr(self.ordering, axis.within)[tensor.layer]
        size = getattr(self.teacher_sizes, axis.within)
        within = inside[units, : getattr(self.architecture, axis.within)]
        rows: Tensor = (units[:, None] * size + within).flatten()
        return rows

    def kept(self, size: str, layer: int | None, *, expert: int | None = None) -> Tensor:
        """The units of the teacher that the student takes of a `size`, in the student's order."""
        if size == "hidden":
            return self.ordering.hidden[: self.architecture.hidden]
        if size == "layers":
            return torch.tensor(list(self.kept_layers))
        assert layer is not None, f"{size} exist only inside layers"
        block = self.block(layer)
        if size == "heads":
            kv_heads = self.teacher_sizes.kv_heads
            return query_heads(self.ordering.heads[layer], kv_heads, block=block)
        if size == "experts":
            groups: Tensor = self.ordering.experts[layer].unflatten(0, (self._expert_groups, -1))
            return groups[:, : block.experts // self._expert_groups].flatten()
        if size == "expert_ffn":
            return self.ordering.expert_ffn[layer, expert][: block.expert_ffn]
        if size == "ssm_heads":
            student, whole = self.architecture, self.teacher_sizes.ssm_groups
            each = student.ssm_heads // student.ssm_groups
            heads: Tensor = self.ordering.ssm_heads[layer].unflatten(0, (whole, -1))
            return heads[: student.ssm_groups, :each].flatten()
        if size == "ssm_head_dim":  # of all heads in one order
            channels: Tensor = self.ordering.ssm_head_dim[layer, 0]
            return channels[: self.architecture.ssm_head_dim]
        units: Tensor = getattr(self.ordering, size)[layer]
        return units[: getattr(self.architecture.layer_sizes(self._index[layer]), size)]

    @cached_property
    def _expert_groups(self) -> int:
        return expert_groups(self.teacher)

    @cached_property
    def _index(self) -> dict[int, int]:
        """Layer of the student, by the layer of the teacher."""
        return {layer: index for index, layer in enumerate(self.kept_layers)}


def query_heads(order: Tensor, kv_heads: int, *, block: Block) -> Tensor:
    """Those that `block` has of the query heads in `order`, of so many KV groups: the first ones of
    each of the first groups."""
    groups: Tensor = order.unflatten(0, (kv_heads, -1))
    return groups[: block.kv_heads, : block.group_heads].flatten()


def rows_of(units: Tensor, width: int) -> Tensor:
    """The rows of these units, of `width` rows each."""
    return (units[:, None] * width + torch.arange(width)).flatten()


def count_of(selection: Selection) -> int:
    """Rows of one dimension."""
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def gather(view: Any, selections: Sequence[Selection]) -> Tensor:
    """Those rows of a safetensors slice or a tensor; reads what it is asked for.

    The result may be a strided view of a memory-mapped file: copy before changing it.
    """
    indices = {dim: part for dim, part in enumerate(selections) if not isinstance(part, slice)}
    runs = {dim: found for dim, index in indices.items() if (found := _runs(index)) is not None}
    bounds = [part if isinstance(part, slice) else slice(None) for part in selections]
    if not isinstance(view, Tensor) and len(runs) == 1:
        dim, found = runs.popitem()
        before, after = bounds[:dim], bounds[dim + 1 :]
        tensor = torch.cat([view[(*before, slice(*run), *after)] for run in found], dim)
        del indices[dim]
    else:
        tensor = view[tuple(bounds)]
    for dim, found in runs.items():
        tensor = torch.cat([tensor.narrow(dim, a, b - a) for a, b in found], dim)
    for dim, index in indices.items():
        if dim not in runs:
            tensor = tensor.index_select(dim, index)
    return tensor


def gather_in_chunks(
    view: Any, selections: Sequence[Selection], *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Tensor]:
    """Contiguous pieces of `gather` along the first dimension, of about `chunk_bytes` each."""
    shape = view.get_shape()
    if not shape:  # a single number
        yield view[...]
        return
    first, *others = selections
    source = view
    if not isinstance(first, slice) and _runs(first) is None:
        # Read from the disk once, in its order; the rows are then gathered in memory.
        source = view[tuple(slice(None) for _ in shape)]
    width = max(1, int(torch.Size(shape[1:]).numel())) * TENSOR_TYPES[view.get_dtype()].itemsize
    step = max(1, chunk_bytes // width)
    for start in range(0, count_of(first), step):
        yield gather(source, [_part(first, start, count=step), *others]).contiguous()


def _part(selection: Selection, start: int, *, count: int) -> Selection:
    if isinstance(selection, slice):
        begin = selection.start + start
        return slice(begin, min(begin + count, selection.stop))
    return selection[start : start + count]


def _runs(index: Tensor) -> list[tuple[int, int]] | None:
    """Contiguous ascending runs [start, stop) of the indices; None for more than `MOST_RUNS`."""
    breaks = torch.nonzero(index.diff() != 1).flatten() + 1
    if len(breaks) >= MOST_RUNS:
        return None
    bounds = [0, *breaks.tolist(), len(index)]
    starts = zip(bounds[:-1], bounds[1:], strict=True)
    return [(int(index[a]), int(index[b - 1]) + 1) for a, b in starts]
