"""What a student costs to hold and to run, from the family's table alone: no model is built.

The fields of an `Architecture` may be numpy arrays of one shape everywhere here; so is the result
then. `kept` are the teacher's layers that the student keeps, as in `parameter_count`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import DynamicCache, PretrainedConfig

from pruning.architecture import Architecture
from pruning.errors import PruningError
from pruning.families import family_of, head_dim_of
from pruning.family import Axes
from pruning.sizes import layers_alike, parameter_count, tensor_shape

TRAINING_PASSES = 3
"""Forward passes that a training step costs: the backward pass computes gradients of inputs and of
weights, each as costly as the forward pass (arXiv 2001.08361)."""

LOOKED_UP = ("vocab", "positions")
"""Axes of the tables that a token looks up, and of the output head."""


def non_embedding_parameters(
    config: PretrainedConfig, a: Architecture, kept: Sequence[int] | None = None
) -> Any:
    """Parameters without token embedding, learned positions and output head."""
    outer = family_of(config).outer_axes(config).values()
    tables = [axes for axes in outer if any(axis in LOOKED_UP for axis in axes)]
    return parameter_count(config, a, kept) - sum(_size(config, a, axes) for axes in tables)


def active_parameters(
    config: PretrainedConfig, a: Architecture, kept: Sequence[int] | None = None
) -> Any:
    """Parameters that a token uses: of a mixture of experts only those it is routed to.

    The embedding counts in full, as in the figures that models are published with.
    """
    outer = family_of(config).outer_axes(config).values()
    return sum(_size(config, a, axes) for axes in outer) + _active_in_layers(config, a, kept)


def kv_cache_bytes(
    config: PretrainedConfig,
    a: Architecture,
    batch: int,
    context: int,
    bytes_per_value: int,
    kept: Sequence[int] | None = None,
) -> Any:
    """Keys and values of `batch` sequences of `context` tokens, in bytes.

    A layer with a sliding window holds no more tokens than its window. Where only some layers have
    one and `kept` is not given, a student keeps those that hold most: the result is an upper bound.
    """
    tokens = np.minimum(context, _windows(config, context))
    per_token = 2 * a.kv_heads * head_dim_of(config) * batch * bytes_per_value
    return per_token * _over_layers(tokens, a.layers, kept)


def memory_bytes(
    config: PretrainedConfig,
    a: Architecture,
    batch: int,
    context: int,
    bytes_per_value: int,
    kept: Sequence[int] | None = None,
) -> Any:
    """Weights and KV cache in bytes, both at `bytes_per_value`; activations are not counted."""
    weights = parameter_count(config, a, kept) * bytes_per_value
    return weights + kv_cache_bytes(config, a, batch, context, bytes_per_value, kept)


def forward_flops(
    config: PretrainedConfig, a: Architecture, context: int, kept: Sequence[int] | None = None
) -> Any:
    """Floating-point operations per token, the mean over a sequence of `context` tokens.

    Two for every weight of a matrix that touches the token (the output head always, the looked-up
    embedding never, of experts those it is routed to), and four per head channel for every token
    that it attends to. Token i attends to i tokens, so the mean is (context + 1) / 2 of them; to
    no more than its window in a layer that has one (see `kv_cache_bytes` for `kept`). Norms,
    activations and softmax are left out. A training step costs `TRAINING_PASSES` times as much.
    """
    places = np.arange(1, context + 1)
    attended = [np.minimum(places, window).mean() for window in _windows(config, context)]
    attention = 4 * a.heads * head_dim_of(config)
    head = _size(config, a, family_of(config).output_head[1])
    matrices = head + _active_in_layers(config, a, kept, only_matrices=True)
    return 2 * matrices + attention * _over_layers(np.array(attended), a.layers, kept)


def _size(config: PretrainedConfig, a: Architecture, axes: Axes) -> Any:
    return prod(tensor_shape(config, a, axes))


def _active_in_layers(
    config: PretrainedConfig,
    a: Architecture,
    kept: Sequence[int] | None,
    only_matrices: bool = False,
) -> Any:
    family = family_of(config)
    routed = np.minimum(a.experts, getattr(config, "num_experts_per_tok", None) or 0)

    def count(layer: int) -> Any:
        total: Any = 0
        for name, axes in family.layer_axes(config, layer).items():
            if len(axes) > 1 or not only_matrices:
                total = total + (routed if "{expert}" in name else 1) * _size(config, a, axes)
        return total

    if kept is not None:
        return sum(count(layer) for layer in kept)
    if layers_alike(config):
        return a.layers * count(0)
    if np.any(np.asarray(a.layers) != config.num_hidden_layers):
        raise PruningError(
            f"this {config.model_type} mixes dense layers and mixtures of experts, so a student's "
            "costs depend on which layers it keeps; name them"
        )
    return sum(count(layer) for layer in range(config.num_hidden_layers))


def _windows(config: PretrainedConfig, context: int) -> list[int]:
    """Tokens that each layer can attend to: its window, or `context` where it has none.

    The cache that generation would use knows the windows of every model type.
    """
    layers = DynamicCache(config=config).layers
    return [getattr(layer, "sliding_window", None) or context for layer in layers]


def _over_layers(of_layer: NDArray[Any], depth: Any, kept: Sequence[int] | None) -> Any:
    """Sum over the layers of students of `depth` layers; of the largest where not `kept`."""
    if kept is not None:
        return of_layer[list(kept)].sum().item()
    totals = np.concatenate([[0], np.cumsum(np.sort(of_layer)[::-1])])[depth]
    return totals if totals.ndim else totals.item()
