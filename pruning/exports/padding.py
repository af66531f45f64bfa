"""Padding: layers enlarged with zeros, for software that knows no layers of their size.

The function stays the same. Zero neurons of an FFN add nothing; the missing query heads of a KV
group attend to its keys with zero queries, and the zero columns of the output projection drop what
they find; a sub-block that is left out becomes one whose every tensor is zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PretrainedConfig

from common.errors import PruningError
from common.files import require_space
from pruning.families.block import Block
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.shapes import axis_rows
from pruning.families.table import family_of
from pruning.families.tensors import TYPE_NAMES
from pruning.families.words import Axes, AxisRows
from pruning.slicing.selection import query_heads, rows_of
from pruning.slicing.writer import TensorPlan, copied, write_tensors

OF_LAYERS = ("block_configs", "base_model_type")
"""Keys of config.json that only a per-layer student has."""


@dataclass(frozen=True)
class PaddedLayer:
    """A layer of a student, and the sizes that zeros fill it up to.

    Raises PruningError where zeros would change the function: a router also asks experts of zeros.
    """

    index: int
    """Its place in the student."""
    block: Block
    """Its sizes there."""
    target: Block
    """Its sizes in the copy."""

    def __post_init__(self) -> None:
        if self.block.has_ffn and self.block.experts != self.target.experts:
            raise PruningError(
                f"layer {self.index} has {self.block.experts} experts and cannot be padded to "
                f"{self.target.experts}: the router would send tokens to experts of zeros"
            )

    def places(self, size: str) -> Tensor:
        """Where the units that the layer has of a `size` stand among those of the target."""
        if size == "heads":
            of_target = torch.arange(self.target.heads)
            return query_heads(of_target, self.target.kv_heads, block=self.block)
        return torch.arange(getattr(self.block, size))


@dataclass(frozen=True)
class PaddedTensor:
    """A tensor of a padded layer."""

    config: PretrainedConfig
    """The stock one of the student."""
    layer: PaddedLayer
    """The layer that it is part of."""
    axes: Axes
    """Axis of each of its dimensions."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions in the copy."""
        return tuple(sum(self._rows(a) for a in dim.split("+")) for dim in self.axes)

    def of(self, tensor: Tensor) -> Tensor:
        """The student's `tensor` among zeros."""
        for dim, joined in enumerate(self.axes):
            shape = list(tensor.shape)
            shape[dim] = self.shape[dim]
            tensor = tensor.new_zeros(shape).index_copy_(dim, self._places(joined), tensor)
        return tensor

    @cached_property
    def _axes(self) -> dict[str, AxisRows]:
        return axis_rows(self.config)

    def _rows(self, name: str) -> int:
        """Rows of a whole axis in the copy; the hidden channels are all there."""
        if name.isdecimal():
            return int(name)
        axis = self._axes[name]
        if name == "hidden":
            return int(self.config.hidden_size)
        return axis.rows * (int(getattr(self.layer.target, axis.size)) if axis.size else 1)

    def _places(self, joined: str) -> Tensor:
        """Rows of the copy that the student's stand in, along a dimension."""
        parts, start = [], 0
        for name in joined.split("+"):
            axis, length = self._axes.get(name), self._rows(name)
            rows = torch.arange(length)
            if axis is not None and axis.size and name != "hidden":
                rows = rows_of(self.layer.places(axis.size), axis.rows)
            parts.append(start + rows)
            start += length
        return torch.cat(parts)


def write_padded_tensors(
    student: Checkpoint, layers: Sequence[PaddedLayer], directory: Path
) -> None:
    """Write the weights of a student with these `layers`, one after another, into `directory`."""
    config = stock_config(student.config)
    with student.reading() as reader:
        plans = list(_plans(reader, config, layers, dtype=student.dtype))
        require_space(directory.parent, sum(plan.bytes for plan in plans), error=PruningError)
        write_tensors(plans, directory)


def stock_config(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of a per-layer student without what it says of single layers."""
    values = {name: value for name, value in config.to_dict().items() if name not in OF_LAYERS}
    kind = CONFIG_MAPPING[config.model_type]
    stock: PretrainedConfig = kind.from_dict(values | {"model_type": config.model_type})
    return stock


def check_norms(config: PretrainedConfig, layer: PaddedLayer) -> None:
    """Raises PruningError for a norm over all heads of a layer that is to have more of them."""
    axes = family_of(config).block_axes(config, layer.index, block=layer.block)
    for name, dims in axes.items():
        normed = dims if "norm" in name and dims in (("heads",), ("kv_heads",)) else ()
        for axis in normed:
            if getattr(layer.block, axis) != getattr(layer.target, axis):
                raise PruningError(
                    f"layer {layer.index} cannot be padded: {config.model_type} norms "
                    f"{name.removesuffix('.weight')} over all heads, which zeros would change"
                )


def _plans(
    reader: Reader, config: PretrainedConfig, layers: Sequence[PaddedLayer], *, dtype: torch.dtype
) -> Iterator[TensorPlan]:
    """Those of the copy; `config` is the stock one of the student."""
    family = family_of(config)
    for name in family.outer_axes(config):
        yield copied(reader, name)
    for place, layer in enumerate(layers):
        axes = family.block_axes(config, layer.index, block=layer.target)
        for name, dims in axes.items():
            padded = PaddedTensor(config, layer, dims)
            there = family.stays(name, layer.block)
            for expert in range(layer.target.experts if "{expert}" in name else 1):
                own = name.replace("{expert}", str(expert))
                new, old = family.layer_tensor(place, own), family.layer_tensor(layer.index, own)
                if there:
                    pieces = partial(_padded, reader, old, padded)
                    yield TensorPlan(new, padded.shape, reader.dtype(old), pieces)
                else:
                    zeros = partial(_zeros, padded.shape, dtype)
                    yield TensorPlan(new, padded.shape, TYPE_NAMES[dtype], zeros)


def _padded(reader: Reader, name: str, padded: PaddedTensor) -> Iterator[Tensor]:
    yield padded.of(reader.view(name)[...])


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Tensor]:
    yield torch.zeros(shape, dtype=dtype)
