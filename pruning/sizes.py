"""Sizes of architectures: which can be cut out of a model, and how many parameters they have."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.architecture import Architecture
from pruning.errors import PruningError
from pruning.families import family_of, head_dim_of
from pruning.family import ORDERED, Axes


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture that a configuration describes."""
    family = family_of(config)
    sizes = {axis: getattr(config, name) for axis, name in family.fields.items()}
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


def tensor_shape(config: PretrainedConfig, architecture: Architecture, axes: Axes) -> list[Any]:
    """Shape of a tensor with these axes in a student of `architecture`."""
    units = axis_units(config)

    def rows(axis: str) -> Any:
        return units[axis] * (getattr(architecture, ORDERED[axis]) if axis in ORDERED else 1)

    return [sum(rows(axis) for axis in dim.split("+")) for dim in axes]


def parameter_count(
    config: PretrainedConfig, architecture: Architecture, kept: Sequence[int] | None = None
) -> Any:
    """Parameters of a student of `architecture`, tied tensors once.

    The fields of `architecture` may be numpy arrays of one shape; so is the result then. `kept`
    are the teacher's layers that the student keeps; they must be given for a model that mixes
    dense layers and mixtures of experts, unless it keeps its depth. Raises PruningError without.
    """
    family = family_of(config)

    def count(tensors: dict[str, Axes]) -> Any:
        total = 0
        for name, axes in tensors.items():
            times = architecture.experts if "{expert}" in name else 1
            total = total + times * prod(tensor_shape(config, architecture, axes))
        return total

    outer = count(family.outer_axes(config))
    sparse = _sparse_layers(config)
    if kept is not None:
        return outer + sum(count(family.layer_axes(config, layer)) for layer in kept)
    if layers_alike(config):
        return outer + architecture.layers * count(family.layer_axes(config, 0))
    if np.any(np.asarray(architecture.layers) != config.num_hidden_layers):
        raise PruningError(
            f"this {config.model_type} mixes dense layers and mixtures of experts, so a student's "
            "parameters depend on which layers it keeps; name them"
        )
    return outer + sum(count(family.layer_axes(config, layer)) for layer in range(len(sparse)))


def _rules(config: PretrainedConfig, a: Architecture) -> list[tuple[str, Any]]:
    """(sentence, whether it holds) for everything that an architecture must meet."""
    teacher = architecture_of(config)
    group = teacher.heads // teacher.kv_heads
    axes = ["layers", "hidden", "heads", "kv_heads"]
    axes += ["ffn"] * (teacher.ffn > 0) + ["experts", "expert_ffn"] * (teacher.experts > 0)
    rules: list[tuple[str, Any]] = [
        (
            f"{axis} must be between 1 and the teacher's {getattr(teacher, axis)}",
            (getattr(a, axis) >= 1) & (getattr(a, axis) <= getattr(teacher, axis)),
        )
        for axis in axes
    ]
    for axis in ("ffn", "experts", "expert_ffn"):
        if axis not in axes:
            rules.append((f"{axis} must be 0, as in the teacher", getattr(a, axis) == 0))
    kv_heads = np.maximum(a.kv_heads, 1)
    rules.append(("heads must be a multiple of kv_heads", a.heads % kv_heads == 0))
    rules.append(
        (
            f"heads must be at most {group} times kv_heads, as in the teacher",
            a.heads <= group * kv_heads,
        )
    )
    if teacher.experts:
        top = config.num_experts_per_tok
        rules.append((f"experts must be at least {top}, those of a token", a.experts >= top))
    for constraint in family_of(config).constraints:
        rules.append((f"{config.model_type} needs {constraint.rule}", constraint.holds(config, a)))
    return rules


def is_legal(config: PretrainedConfig, architecture: Architecture) -> Any:
    """Whether `architecture` can be cut out of the model; elementwise for numpy fields.

    KV heads are dropped with the query heads that they serve; every kept one serves as many.
    """
    legal: Any = True
    for _, holds in _rules(config, architecture):
        legal = legal & holds
    return legal


def check_architecture(config: PretrainedConfig, architecture: Architecture) -> None:
    """Raises PruningError, with the rule that is broken, where it cannot be cut out."""
    for rule, holds in _rules(config, architecture):
        if not holds:
            raise PruningError(
                f"{architecture} cannot be cut out of {architecture_of(config)}: {rule}"
            )
