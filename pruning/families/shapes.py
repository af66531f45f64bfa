"""Shapes of a model's tensors, and how many parameters an architecture has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import EXPERT_AXES, SSM_AXES, Architecture, Count, Sizes
from pruning.families.block import EXPERTS, FFN, SSM, Block
from pruning.families.kinds import ALL_SHARES, Kind, LayerShares
from pruning.families.table import family_of, head_dim_of, value_of
from pruning.families.words import Axes, AxisRows

OF_SIZES: dict[str, AxisRows] = {
    **{
        size: AxisRows(size)
        for size in (
            "hidden",
            "ffn",
            "experts",
            "expert_ffn",
            "shared_ffn",
            "expert_latent",
            "ssm_heads",
            "ssm_groups",
            "ssm_head_dim",
        )
    },
    "ssm_inner": AxisRows("ssm_heads", within="ssm_head_dim"),
    "ssm_states": AxisRows("ssm_groups", within="ssm_state"),
}
"""Axes whose rows are the same whatever the configuration: one for each unit, or as many as another
size says."""
Kept = Sequence[int] | LayerShares | None
"""The teacher's layers that a student keeps, or the rule by which it keeps of each kind its share;
None for that rule without floors of its own."""


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture that a configuration describes.

    Raises:
        PruningError: The model type has no row in the table, or a size cannot be.
    """
    family = family_of(config)
    sizes = {axis: value_of(config, name) for axis, name in family.fields.items()}
    sizes |= family.sizes_of(config)
    blocks: tuple[Block, ...] = getattr(config, "blocks", ())
    if blocks:  # those of `pruning.per_layer`
        return Architecture.of_blocks(sizes["hidden"], blocks)
    if sizes.get("kv_heads") is None:
        sizes["kv_heads"] = sizes["heads"]
    for axis in ("layers", "hidden", "heads", "kv_heads"):
        if sizes[axis] < 1:
            raise PruningError(f"config.json says {sizes[axis]} {axis}; it must be at least 1")
    for axis in sizes.keys() - {"layers", "hidden", "heads", "kv_heads"}:
        if (sizes.get(axis) or 0) < 0:
            raise PruningError(f"config.json says {sizes[axis]} {axis}; it must not be negative")
    for axis, of in (("heads", "kv_heads"), ("ssm_heads", "ssm_groups")):
        if (sizes.get(axis) or 0) % (sizes.get(of) or 1):
            raise PruningError(
                f"config.json says {sizes[axis]} {axis} and {sizes[of]} {of}, which do not divide "
                "them into groups of as many; mend it"
            )
    parts = {part for kind in kinds_of(config) for part in kind}
    needed = {SSM: SSM_AXES[:-1], EXPERTS: ("experts", "expert_ffn"), FFN: ("ffn",)}
    for axis in (axis for part, axes in needed.items() if part in parts for axis in axes):
        if sizes.get(axis) == 0:
            raise PruningError(f"config.json says 0 {axis}, and layers that have them; mend it")
    if EXPERTS in parts and getattr(config, "num_experts_per_tok", None) == 0:
        raise PruningError("config.json says 0 num_experts_per_tok; it must be at least 1")
    if "ffn" not in family.fields or FFN not in parts:
        sizes["ffn"] = 0
    elif sizes["ffn"] is None:  # GPT-2's way of saying four times the hidden size
        sizes["ffn"] = 4 * sizes["hidden"]
    absent = () if EXPERTS in parts else EXPERT_AXES
    absent += () if SSM in parts else SSM_AXES
    present: dict[str, Any] = {a: 0 if a in absent else n or 0 for a, n in sizes.items()}
    return Architecture(**present)


def block_of(
    config: PretrainedConfig, layer: int, *, architecture: Architecture | None = None
) -> Block:
    """The sizes of one layer of a model, or of another `architecture` with the same layers: of a
    mixture its experts alone."""
    whole = architecture_of(config) if architecture is None else architecture
    block = whole.block(layer)
    if family_of(config).has(EXPERTS, config, layer):
        return replace(block, ffn=0)
    return replace(block, experts=0, expert_ffn=0)


def kinds_of(config: PretrainedConfig) -> list[Kind]:
    """The kind of each layer of a model."""
    family = family_of(config)
    return [family.kind(config, layer) for layer in range(config.num_hidden_layers)]


def layers_alike(config: PretrainedConfig) -> bool:
    """Whether all layers are of one kind, so that a student's size tells its parameters."""
    return len(set(kinds_of(config))) == 1


def in_order(layers: Sequence[int], count: int) -> bool:
    """Whether these are different layers of a model with `count`, in its order; not none."""
    return bool(layers) and list(layers) == sorted(set(layers) & set(range(count)))


def axis_rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    """The rows that each axis takes in a tensor of a model with this configuration."""
    head_dim = head_dim_of(config)
    return {
        "vocab": AxisRows(rows=config.vocab_size),
        "positions": AxisRows(rows=getattr(config, "max_position_embeddings", 0)),
        "head_dim": AxisRows(rows=head_dim),
        "heads": AxisRows("heads", head_dim),
        "kv_heads": AxisRows("kv_heads", head_dim),
        "qkv_heads": AxisRows("heads", 3 * head_dim),
        **OF_SIZES,
        **family_of(config).axis_rows(config),
    }


def rows_in(sizes: Sizes[Any], axis: AxisRows) -> Any:
    """Rows that an axis takes in a tensor of a model of these `sizes`; of a join of several see
    `dimension_rows`."""
    units = getattr(sizes, axis.size) if axis.size else 1
    return units * (getattr(sizes, axis.within) if axis.within else axis.rows)


def dimension_rows(sizes: Sizes[Any], dim: str, *, rows: Mapping[str, AxisRows]) -> Any:
    """Rows of a dimension of a tensor, by its axes and the `axis_rows` of its model.

    An axis that is a number is a dimension of as many rows in every student.
    """
    total = 0
    for name in dim.split("+"):
        if name.isdecimal():
            total = total + int(name)
        elif rows[name].joined:
            total = total + dimension_rows(sizes, rows[name].joined, rows=rows)
        else:
            total = total + rows_in(sizes, rows[name])
    return total


def places_of(
    sizes: Architecture, dim: str, *, rows: Mapping[str, AxisRows]
) -> list[tuple[AxisRows, Tensor]]:
    """(axis, its places in the dimension) of everything that is joined in it, one after another;
    numbers are left out."""
    found: list[tuple[AxisRows, Tensor]] = []
    start = 0
    for name in dim.split("+"):
        length = int(dimension_rows(sizes, name, rows=rows))
        if not name.isdecimal() and rows[name].joined:
            groups = torch.arange(start, start + length).unflatten(
                0, (getattr(sizes, rows[name].size), -1)
            )
            parts = rows[name].joined.split("+")
            each = [dimension_rows(sizes, part, rows=rows) // len(groups) for part in parts]
            inside = groups.split(each, dim=1)
            found += [(rows[p], at.flatten()) for p, at in zip(parts, inside, strict=True)]
        elif not name.isdecimal():
            found.append((rows[name], torch.arange(start, start + length)))
        start += length
    return found


def tensor_shape(sizes: Sizes[Any], axes: Axes, *, rows: Mapping[str, AxisRows]) -> list[Any]:
    """Shape of a tensor with these `axes` in a student of these `sizes`, of a teacher with these
    `axis_rows`; arrays for a grid."""
    return [dimension_rows(sizes, dim, rows=rows) for dim in axes]


def parameter_count(
    config: PretrainedConfig, architecture: Sizes[Count], *, kept: Kept = None
) -> Count:
    """Parameters of a student, tied tensors once.

    Args:
        config: Of the teacher.
        architecture: Of the student, or a grid: then there is a count for each.
        kept: The teacher's layers that the student keeps; by default of each kind its share.
    """
    family, rows = family_of(config), axis_rows(config)

    def count(tensors: dict[str, Axes], sizes: Sizes[Any]) -> Any:
        total = 0
        for name, axes in tensors.items():
            if name in family.buffers:
                continue
            times = sizes.experts if "{expert}" in name else 1
            total = total + times * prod(tensor_shape(sizes, axes, rows=rows))
        return total

    outer = count(family.outer_axes(config), architecture)
    total: Count = outer + sum_over_layers(config, architecture, count, kept=kept)
    return total


def sum_over_layers(
    config: PretrainedConfig,
    architecture: Sizes[Any],
    of_layer: Callable[[dict[str, Axes], Sizes[Any]], Any],
    *,
    kept: Kept,
) -> Any:
    """Sum of `of_layer` over the layers of a student.

    Args:
        config: Of the teacher.
        architecture: Of the student, or a grid.
        of_layer: Figure of a layer with these tensors and sizes.
        kept: The teacher's layers that the student keeps; by default of each kind its share.
    """
    family, depth = family_of(config), architecture.layers
    shares = ALL_SHARES if kept is None else kept
    if isinstance(architecture, Architecture) and architecture.per_layer:
        layers = range(depth) if isinstance(shares, LayerShares) else shares
        if kept is None and depth < config.num_hidden_layers and not layers_alike(config):
            raise PruningError(
                f"this {config.model_type} has layers of several kinds, so that the size of "
                f"{architecture} depends on which layers it keeps; name them"
            )
        total = 0
        for index, layer in enumerate(layers):
            axes = family.block_axes(config, layer, block=architecture.block(index))
            total = total + of_layer(axes, architecture.layer_sizes(index))
        return total
    if not isinstance(shares, LayerShares):
        return sum(of_layer(family.layer_axes(config, layer), architecture) for layer in shares)
    if layers_alike(config):
        return depth * of_layer(family.layer_axes(config, 0), architecture)
    kinds = kinds_of(config)
    found = shares.counts(kinds)
    numbers = {
        kind: int(n[depth]) if isinstance(depth, int) else n[depth] for kind, n in found.items()
    }
    return sum(
        numbers[kind] * of_layer(family.layer_axes(config, kinds.index(kind)), architecture)
        for kind in found
    )
