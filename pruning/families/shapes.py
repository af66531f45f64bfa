"""Shapes of a model's tensors, and how many parameters an architecture has."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture, Count, Sizes
from pruning.families.block import Block
from pruning.families.spec import ORDERED, Axes
from pruning.families.table import family_of, head_dim_of


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture that a configuration describes.

    Raises:
        PruningError: The model type has no row in the table, or a size cannot be.
    """
    family = family_of(config)
    sizes = {axis: getattr(config, name) for axis, name in family.fields.items()}
    blocks: tuple[Block, ...] = getattr(config, "blocks", ())
    if blocks:  # those of `pruning.per_layer`
        return Architecture.of_blocks(sizes["hidden"], blocks)
    if sizes.get("kv_heads") is None:
        sizes["kv_heads"] = sizes["heads"]
    for axis in ("layers", "hidden", "heads", "kv_heads"):
        if sizes[axis] < 1:
            raise PruningError(f"config.json says {sizes[axis]} {axis}; it must be at least 1")
    for axis in ("ffn", "experts", "expert_ffn"):
        if (sizes.get(axis) or 0) < 0:
            raise PruningError(f"config.json says {sizes[axis]} {axis}; it must not be negative")
    if "ffn" not in family.fields or not any(_dense_layers(config)):
        sizes["ffn"] = 0
    elif sizes["ffn"] is None:  # GPT-2's way of saying four times the hidden size
        sizes["ffn"] = 4 * sizes["hidden"]
    if not any(_sparse_layers(config)):
        sizes |= {"experts": 0, "expert_ffn": 0}
    return Architecture(**sizes)


def block_of(
    config: PretrainedConfig, layer: int, *, architecture: Architecture | None = None
) -> Block:
    """The sizes of one layer of a model, or of another `architecture` with the same layers: of a
    mixture its experts alone."""
    whole = architecture_of(config) if architecture is None else architecture
    block = whole.block(layer)
    if family_of(config).is_sparse(config, layer):
        return replace(block, ffn=0)
    return replace(block, experts=0, expert_ffn=0)


def _sparse_layers(config: PretrainedConfig) -> list[bool]:
    family = family_of(config)
    return [family.is_sparse(config, layer) for layer in range(config.num_hidden_layers)]


def _dense_layers(config: PretrainedConfig) -> list[bool]:
    return [not sparse for sparse in _sparse_layers(config)]


def layers_alike(config: PretrainedConfig) -> bool:
    """Whether all layers have the same tensors, so that a student's size tells its parameters."""
    return len(set(_sparse_layers(config))) == 1


def in_order(layers: Sequence[int], count: int) -> bool:
    """Whether these are different layers of a model with `count`, in its order; not none."""
    return bool(layers) and list(layers) == sorted(set(layers) & set(range(count)))


def axis_units(config: PretrainedConfig) -> dict[str, int]:
    """Rows that one of an axis takes in a tensor; a fixed axis is one unit as a whole."""
    head_dim = head_dim_of(config)
    return {
        "vocab": config.vocab_size,
        "positions": getattr(config, "max_position_embeddings", 0),
        "head_dim": head_dim,
        "hidden": 1,
        "ffn": 1,
        "heads": head_dim,
        "kv_heads": head_dim,
        "qkv_heads": 3 * head_dim,
        "experts": 1,
        "expert_ffn": 1,
    }


def tensor_shape(config: PretrainedConfig, sizes: Sizes[Any], *, axes: Axes) -> list[Any]:
    """Shape of a tensor with these `axes` in a student of these `sizes`; arrays for a grid."""
    units = axis_units(config)

    def rows(axis: str) -> Any:
        return units[axis] * (getattr(sizes, ORDERED[axis]) if axis in ORDERED else 1)

    return [sum(rows(axis) for axis in dim.split("+")) for dim in axes]


def parameter_count(
    config: PretrainedConfig, architecture: Sizes[Count], *, kept: Sequence[int] | None = None
) -> Count:
    """Parameters of a student, tied tensors once.

    Args:
        config: Of the teacher.
        architecture: Of the student, or a grid: then there is a count for each.
        kept: The teacher's layers that the student keeps. They must be given for a model that
            mixes dense layers and mixtures of experts, unless it keeps its depth.

    Raises:
        PruningError: `kept` is missing.
    """
    family = family_of(config)

    def count(tensors: dict[str, Axes], sizes: Sizes[Any]) -> Any:
        total = 0
        for name, axes in tensors.items():
            times = sizes.experts if "{expert}" in name else 1
            total = total + times * prod(tensor_shape(config, sizes, axes=axes))
        return total

    outer = count(family.outer_axes(config), architecture)
    total: Count = outer + sum_over_layers(
        config, architecture, count, kept=kept, what="parameters"
    )
    return total


def sum_over_layers(
    config: PretrainedConfig,
    architecture: Sizes[Any],
    of_layer: Callable[[dict[str, Axes], Sizes[Any]], Any],
    *,
    kept: Sequence[int] | None,
    what: str,
) -> Any:
    """Sum of `of_layer` over the layers of a student.

    Args:
        config: Of the teacher.
        architecture: Of the student, or a grid.
        of_layer: Figure of a layer with these tensors and sizes.
        kept: The teacher's layers that the student keeps, or None where they do not matter.
        what: The figures, for the error.

    Raises:
        PruningError: `kept` is missing, and the teacher's layers differ.
    """
    family, depth = family_of(config), architecture.layers
    if kept is None and not layers_alike(config):
        if np.any(np.asarray(depth) != config.num_hidden_layers):
            raise PruningError(
                f"this {config.model_type} mixes dense layers and mixtures of experts, so a "
                f"student's {what} depend on which layers it keeps; name them"
            )
        kept = range(config.num_hidden_layers)
    if isinstance(architecture, Architecture) and architecture.per_layer:
        total = 0
        for index, layer in enumerate(range(depth) if kept is None else kept):
            axes = family.block_axes(config, layer, block=architecture.block(index))
            total = total + of_layer(axes, architecture.layer_sizes(index))
        return total
    if kept is None:
        return depth * of_layer(family.layer_axes(config, 0), architecture)
    return sum(of_layer(family.layer_axes(config, layer), architecture) for layer in kept)
