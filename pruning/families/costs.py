"""Costs of holding and running a student, from the family's table alone: no model is built.

Every figure is of an `Architecture`, or of each architecture of an `ArchitectureGrid`. `kept` are
the teacher's layers that the student keeps, as in `parameter_count`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from transformers import DynamicCache, PretrainedConfig

from pruning.families.architecture import Architecture, ArchitectureGrid, Count, Sizes
from pruning.families.block import ATTENTION
from pruning.families.kinds import ALL_SHARES, LayerShares
from pruning.families.shapes import (
    Kept,
    axis_rows,
    kinds_of,
    parameter_count,
    rows_in,
    sum_over_layers,
    tensor_shape,
)
from pruning.families.table import (
    experts_per_token,
    family_of,
    head_dim_of,
    head_sizes,
    layer_heads,
)
from pruning.families.words import Axes, AxisRows

TRAINING_PASSES = 3
"""Forward passes that a training step costs: the backward pass computes gradients of inputs and of
weights, each as costly as the forward pass (arXiv 2001.08361)."""

STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Of a value of the recurrent state, by what a configuration calls its type; in fp32, as
transformers holds it, where none is named."""

LOOKED_UP = ("vocab", "positions", "layer_vocab")
"""Axes of the tables that a token looks up, and of the output head."""


@dataclass(frozen=True)
class Workload:
    """Batch, context and type of values that a student is served with."""

    batch: int
    """Sequences at once."""
    context: int
    """Tokens of each."""
    bytes_per_value: int
    """Of weights, keys and values."""


def non_embedding_parameters(
    config: PretrainedConfig, architecture: Sizes[Count], *, kept: Kept = None
) -> Count:
    """Parameters without token embedding, learned positions and output head."""
    outer, rows = family_of(config).outer_axes(config).values(), axis_rows(config)
    tables = [axes for axes in outer if any(axis in LOOKED_UP for axis in axes)]
    count: Any = parameter_count(config, architecture, kept=kept)
    rest: Count = count - sum(_size(architecture, axes, rows=rows) for axes in tables)
    return rest


def active_parameters(
    config: PretrainedConfig, architecture: Sizes[Count], *, kept: Kept = None
) -> Count:
    """Parameters that a token uses: of a mixture of experts only those it is routed to.

    The embedding counts in full, as in the figures that models are published with.
    """
    outer, rows = family_of(config).outer_axes(config).values(), axis_rows(config)
    tables = sum(_size(architecture, axes, rows=rows) for axes in outer)
    count: Count = tables + _active_in_layers(config, architecture, kept=kept)
    return count


def kv_cache_bytes(
    config: PretrainedConfig,
    architecture: Sizes[Count],
    workload: Workload,
    *,
    kept: Kept = None,
) -> Count:
    """Keys and values of the sequences, or the latents that they are made of, in bytes; layers
    without attention have none.

    A layer with a sliding window holds no more tokens than its window, and one that reads the keys
    and values of another none. Where only some layers have a window and `kept` is not given, a
    student keeps those that hold most: the result is an upper bound.
    """
    tokens = np.minimum(workload.context, windows_of(config, workload.context))
    head = head_sizes(config)
    units = "" if head.cached else "kv_heads"
    each = head.cached or head.keys + head.values
    if family_of(config).layer_heads is not None:
        tokens, each = tokens * _channels(config, cached=True), 1
    held = _over_layers(config, architecture, tokens=tokens, axis=units, kept=kept)
    cache: Count = held * each * workload.batch * workload.bytes_per_value
    return cache


def _channels(config: PretrainedConfig, *, cached: bool) -> NDArray[np.int64]:
    """Channels of keys and values in each layer, for places as `windows_of` has them: of a head, or
    those `cached` for a KV head."""
    heads = [layer_heads(config, layer) for layer in range(config.num_hidden_layers)]
    each = [2 * head.head_dim for head in heads]
    if cached:
        each = [
            channels // head.kv_together if head.kv_source is None else 0
            for head, channels in zip(heads, each, strict=True)
        ]
    return np.array([*each, 2 * head_dim_of(config)])


def memory_bytes(
    config: PretrainedConfig,
    architecture: Sizes[Count],
    workload: Workload,
    *,
    kept: Kept = None,
) -> Count:
    """Weights, KV cache and recurrent states in bytes; activations are not counted."""
    count: Any = parameter_count(config, architecture, kept=kept)
    cache = kv_cache_bytes(config, architecture, workload, kept=kept)
    states = state_bytes(config, architecture, workload, kept=kept)
    memory: Count = count * workload.bytes_per_value + cache + states
    return memory


def state_bytes(
    config: PretrainedConfig,
    architecture: Sizes[Count],
    workload: Workload,
    *,
    kept: Kept = None,
) -> Count:
    """Recurrent states of the sequences, in bytes: they do not grow with the context.

    Each head of a layer holds its channels times the state, in the type that the configuration
    names for it (`mamba_ssm_cache_dtype`) or else in fp32, and the convolution the tokens that it
    still needs.
    """
    recurrence = family_of(config).recurrence
    if recurrence is None:
        none: Count = architecture.layers * 0
        return none
    named = getattr(config, "mamba_ssm_cache_dtype", None)
    wide = STATE_BYTES.get(str(named), STATE_BYTES["float32"])
    tokens = getattr(config, recurrence.conv_kernel) - 1

    def of_layer(tensors: dict[str, Axes], sizes: Sizes[Any]) -> Any:
        if not _recurrent(config, tensors):
            return 0
        channels = _convolved(config, sizes)
        return _state_values(sizes) * wide + tokens * channels * workload.bytes_per_value

    states: Count = workload.batch * sum_over_layers(config, architecture, of_layer, kept=kept)
    return states


def _state_values(sizes: Sizes[Any]) -> Any:
    return sizes.ssm_heads * sizes.ssm_head_dim * sizes.ssm_state


def _convolved(config: PretrainedConfig, sizes: Sizes[Any]) -> Any:
    """Channels that pass the convolution: those of the heads, and of what is written and read."""
    rows = axis_rows(config)
    return rows_in(sizes, rows["ssm_inner"]) + 2 * rows_in(sizes, rows["ssm_states"])


@overload
def forward_flops(
    config: PretrainedConfig, architecture: Architecture, context: int, *, kept: Kept = None
) -> float: ...
@overload
def forward_flops(
    config: PretrainedConfig, architecture: ArchitectureGrid, context: int, *, kept: Kept = None
) -> NDArray[np.float64]: ...
def forward_flops(
    config: PretrainedConfig, architecture: Sizes[Any], context: int, *, kept: Kept = None
) -> Any:
    """Floating-point operations per token, the mean over a sequence of `context` tokens.

    Two for every weight of a matrix that touches the token (the output head always, the looked-up
    embedding never, of experts those it is routed to), and two per channel of a head's key and of
    its value for every token that it attends to. Token i attends to i tokens, so the mean is
    (context + 1) / 2 of them; to no more than its window in a layer that has one (see
    `kv_cache_bytes` for `kept`). A recurrent state costs a few operations for each of its values.
    Norms, activations and softmax are left out. Training costs `TRAINING_PASSES` times as much, see
    `training_flops`.
    """
    places = np.arange(1, context + 1)
    windows = windows_of(config, context)
    attended = np.array([np.minimum(places, window).mean() for window in windows])
    family, rows = family_of(config), axis_rows(config)
    others = [axes for axes in family.outer_axes(config).values() if _is_matrix(axes)]
    outer = [family.output_head[1], *(a for a in others if not any(x in LOOKED_UP for x in a))]
    matrices = sum(_size(architecture, axes, rows=rows) for axes in outer)
    matrices = matrices + _active_in_layers(config, architecture, kept=kept, only_matrices=True)
    head = head_sizes(config)
    channels = head.keys + head.values
    if family.layer_heads is not None:
        attended, channels = attended * _channels(config, cached=False), 1
    heads = _over_layers(config, architecture, tokens=attended, axis="heads", kept=kept)
    recurrence = family.recurrence
    flops = 2 * matrices + 2 * channels * heads
    if recurrence is None:
        return flops

    def values(tensors: dict[str, Axes], sizes: Sizes[Any]) -> Any:
        return _state_values(sizes) if _recurrent(config, tensors) else 0

    states = sum_over_layers(config, architecture, values, kept=kept)
    return flops + recurrence.state_flops * states


def training_flops(config: PretrainedConfig, architecture: Architecture, context: int) -> float:
    """Floating-point operations to train on a token, as `forward_flops` counts those of a forward
    pass; what gradient checkpointing computes again is not counted."""
    return TRAINING_PASSES * float(forward_flops(config, architecture, context))


def _recurrent(config: PretrainedConfig, tensors: Iterable[str]) -> bool:
    """Whether a layer with these tensors has a recurrent state."""
    return not family_of(config).ssm_tensors.keys().isdisjoint(tensors)


def _size(sizes: Sizes[Any], axes: Axes, *, rows: Mapping[str, AxisRows]) -> Any:
    return prod(tensor_shape(sizes, axes, rows=rows))


def _active_in_layers(
    config: PretrainedConfig, sizes: Sizes[Any], *, kept: Kept, only_matrices: bool = False
) -> Any:
    family, most, rows = family_of(config), experts_per_token(config), axis_rows(config)

    def count(tensors: dict[str, Axes], layer: Sizes[Any]) -> Any:
        total: Any = 0
        given = layer.experts_per_token
        per_token = np.where(np.equal(given, 0), most, given) if np.any(given) else most
        for name, axes in tensors.items():
            routed = family.of_experts(name, axes)
            own = axes[1:] if routed and axes[0] == "experts" else axes
            if (_is_matrix(own) or not only_matrices) and name not in family.buffers:
                times = np.minimum(layer.experts, per_token) if routed else 1
                total = total + times * _size(layer, own, rows=rows)
        return total

    return sum_over_layers(config, sizes, count, kept=kept)


def _is_matrix(axes: Axes) -> bool:
    """Whether a tensor multiplies vectors; a norm with weights for each head does not."""
    return len(axes) > 1 and "head_dim" not in axes


def windows_of(config: PretrainedConfig, context: int) -> list[int]:
    """Tokens that each layer can attend to: its window, `context` where it has none, 0 without
    attention; and last, those of a layer that takes the model's window.

    The cache that generation would use knows the windows of every model type.
    """
    layers = DynamicCache(config=config).layers
    own = [getattr(layer, "sliding_window", None) or context for layer in layers]
    kinds = kinds_of(config)
    if family_of(config).layer_heads is not None:  # what reads another's has no cache to ask
        sources = [layer_heads(config, layer).kv_source for layer in range(len(kinds))]
        own = [own[i if source is None else source] for i, source in enumerate(sources)]
    if len(own) == len(kinds):
        own = [n if ATTENTION in kind else 0 for n, kind in zip(own, kinds, strict=True)]
    return [*own, getattr(config, "sliding_window", None) or context]


def _over_layers(
    config: PretrainedConfig, sizes: Sizes[Any], *, tokens: NDArray[Any], axis: str, kept: Kept
) -> Any:
    """Sum over the layers of students of their heads on `axis`, or of one unit where that is "",
    times the `tokens` that these hold (as `windows_of` has them); of the layers of each kind that
    hold most where not `kept`."""
    *own, windowed = tokens.tolist()
    if isinstance(sizes, Architecture) and sizes.per_layer:
        if kept is None or isinstance(kept, LayerShares):
            whole = sizes.layers == config.num_hidden_layers
            own = own if whole else [max(own)] * sizes.layers
            kept = range(sizes.layers)
        return sum(
            (getattr(block, axis) if axis else int(block.has_attention))
            * (windowed if block.window else own[layer])
            for layer, block in zip(kept, sizes.blocks, strict=True)
        )
    heads: Any = getattr(sizes, axis) if axis else 1
    if kept is not None and not isinstance(kept, LayerShares):
        return heads * sum(own[layer] for layer in kept)
    kinds = kinds_of(config)
    totals: Any = 0
    for kind, counts in (kept or ALL_SHARES).counts(kinds).items():
        of_kind = [n for n, other in zip(own, kinds, strict=True) if other == kind]
        most = np.concatenate([[0], np.cumsum(sorted(of_kind, reverse=True))])
        totals = totals + most[counts[sizes.layers]]
    return heads * (totals if totals.ndim else totals.item())
