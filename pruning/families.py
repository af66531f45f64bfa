"""What each Hugging Face model type calls its parts: one row of a table per type.

A row names every tensor of the model and the axis of each of its dimensions. Sorting, slicing and
counting are written once, over that table; nothing else in the project asks for the model type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.architecture import Architecture
from pruning.errors import PruningError

Axes = tuple[str, ...]
"""Axis of each dimension: "vocab", "hidden", "ffn", "heads" or "kv_heads" (each x head_dim)."""


@dataclass(frozen=True)
class Family:
    """One row: how a model type is laid out. Names of `layer_tensors` are relative to a layer."""

    model_type: str
    model_tensors: Mapping[str, Axes]
    """Tensors outside the layers, without the output head."""
    output_head: tuple[str, Axes]
    """The head; absent from the model, and counted once, where embeddings are tied."""
    layer_prefix: str
    layer_tensors: Mapping[str, Axes]
    optional_tensors: Mapping[str, tuple[str, Axes]]
    """Tensor of a layer -> (configuration flag that brings it, axes)."""
    input_norms: tuple[str, ...]
    """Modules of a layer whose outputs show how much a hidden channel matters."""
    attention_output: str
    """The projection whose input is the concatenation of the query heads."""
    ffn_output: str
    """The projection whose input is the FFN's neurons."""
    hidden_divisible_by_heads: bool = False
    """Whether the configuration class refuses a hidden size that the heads do not divide."""
    per_layer_fields: tuple[str, ...] = field(default=("layer_types",))
    """Configuration lists with one entry per layer, cut together with the layers."""

    def layer_axes(self, config: PretrainedConfig) -> dict[str, Axes]:
        """Tensors of one layer of a model with this configuration."""
        axes = dict(self.layer_tensors)
        for name, (flag, optional) in self.optional_tensors.items():
            if getattr(config, flag, False):
                axes[name] = optional
        return axes

    def outer_axes(self, config: PretrainedConfig) -> dict[str, Axes]:
        """Tensors outside the layers of a model with this configuration, tied ones once."""
        axes = dict(self.model_tensors)
        if not config.tie_word_embeddings:
            axes[self.output_head[0]] = self.output_head[1]
        return axes

    def tensors(self, config: PretrainedConfig) -> Iterator[tuple[str, int | None, Axes]]:
        """(name, layer or None, axes) of every tensor of the model."""
        for name, axes in self.outer_axes(config).items():
            yield name, None, axes
        layer_axes = self.layer_axes(config)
        for layer in range(config.num_hidden_layers):
            for name, axes in layer_axes.items():
                yield self.layer_tensor(layer, name), layer, axes

    def layer_tensor(self, layer: int, name: str) -> str:
        return f"{self.layer_prefix}.{layer}.{name}"


def _gated_attention_family(model_type: str, **options: Any) -> Family:
    return Family(
        model_type=model_type,
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="model.layers",
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "self_attn.q_proj.weight": ("heads", "hidden"),
            "self_attn.k_proj.weight": ("kv_heads", "hidden"),
            "self_attn.v_proj.weight": ("kv_heads", "hidden"),
            "self_attn.o_proj.weight": ("hidden", "heads"),
            "post_attention_layernorm.weight": ("hidden",),
            "mlp.gate_proj.weight": ("ffn", "hidden"),
            "mlp.up_proj.weight": ("ffn", "hidden"),
            "mlp.down_proj.weight": ("hidden", "ffn"),
        },
        input_norms=("input_layernorm", "post_attention_layernorm"),
        attention_output="self_attn.o_proj",
        ffn_output="mlp.down_proj",
        **options,
    )


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        _gated_attention_family(
            "llama",
            optional_tensors={
                "self_attn.q_proj.bias": ("attention_bias", ("heads",)),
                "self_attn.k_proj.bias": ("attention_bias", ("kv_heads",)),
                "self_attn.v_proj.bias": ("attention_bias", ("kv_heads",)),
                "self_attn.o_proj.bias": ("attention_bias", ("hidden",)),
                "mlp.gate_proj.bias": ("mlp_bias", ("ffn",)),
                "mlp.up_proj.bias": ("mlp_bias", ("ffn",)),
                "mlp.down_proj.bias": ("mlp_bias", ("hidden",)),
            },
            hidden_divisible_by_heads=True,
        ),
        _gated_attention_family("mistral", optional_tensors={}),
    )
}


def family_of(config: PretrainedConfig) -> Family:
    """The row for a model's configuration. Raises PruningError for a type without a row."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise PruningError(
            f"models of type {config.model_type!r} are not supported; supported types: {known} "
            "(a new one is a row of the table in pruning/families.py)"
        )
    if getattr(config, "quantization_config", None):
        raise PruningError(
            "the model is quantised; dequantise it and save it in bf16 or fp32 first"
        )
    return family


def head_dim_of(config: PretrainedConfig) -> int:
    """Channels per head, also where the configuration leaves it to be derived."""
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture that a configuration describes."""
    family_of(config)
    return Architecture(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        ffn=config.intermediate_size,
    )


def axis_sizes(config: PretrainedConfig, architecture: Architecture) -> dict[str, Any]:
    """Size of each axis of `Axes` in a student of `architecture`."""
    head_dim = head_dim_of(config)
    return {
        "vocab": config.vocab_size,
        "hidden": architecture.hidden,
        "heads": architecture.heads * head_dim,
        "kv_heads": architecture.kv_heads * head_dim,
        "ffn": architecture.ffn,
    }


def parameter_count(config: PretrainedConfig, architecture: Architecture) -> Any:
    """Parameters of a student of `architecture`, tied tensors once.

    The fields of `architecture` may be numpy arrays of one shape; so is the result then.
    """
    family = family_of(config)
    sizes = axis_sizes(config, architecture)
    outer = sum(prod(sizes[a] for a in axes) for axes in family.outer_axes(config).values())
    layer = sum(prod(sizes[a] for a in axes) for axes in family.layer_axes(config).values())
    return outer + architecture.layers * layer


def is_legal(config: PretrainedConfig, architecture: Architecture) -> Any:
    """Whether `architecture` can be cut out of the model; elementwise for numpy fields.

    KV groups are kept, unless every head is a group of its own: then both are one axis.
    """
    teacher = architecture_of(config)
    legal = (architecture.hidden <= teacher.hidden) & (architecture.ffn <= teacher.ffn)
    legal &= (architecture.layers <= teacher.layers) & (architecture.heads <= teacher.heads)
    if teacher.heads == teacher.kv_heads:
        legal &= architecture.kv_heads == architecture.heads
    else:
        legal &= (architecture.kv_heads == teacher.kv_heads) & (
            architecture.heads % teacher.kv_heads == 0
        )
    if family_of(config).hidden_divisible_by_heads:
        legal &= architecture.hidden % np.maximum(architecture.heads, 1) == 0
    for size in (architecture.layers, architecture.hidden, architecture.heads, architecture.ffn):
        legal &= size >= 1
    return legal
