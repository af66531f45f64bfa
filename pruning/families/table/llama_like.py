"""Rows of dense models with Llama's layout or a variation of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Architecture, Sizes
from pruning.families.spec import Axes, Constraint, Family, OlderNames, Rescale
from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    BIASED_FFN,
    HEAD_NORMS,
    HEADS_DIVIDE_HIDDEN,
    PRE_NORMS,
    QKV_BIASES,
    flagged,
    llama_like,
)


def _gemma(model_type: str, head_norms: Mapping[str, Axes], **row: Any) -> Family:
    """Four norms per layer, each multiplying by 1 + w; embeddings times sqrt(hidden size)."""
    return llama_like(
        model_type,
        layer_tensors={
            **PRE_NORMS,
            "pre_feedforward_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            **head_norms,
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("input_layernorm", "post_attention_layernorm"),
        norm_offset=1.0,
        rescale=_gemma_embedding,
        constraints=(HEADS_DIVIDE_HIDDEN,),
        **row,
    )


def _gemma_embedding(config: PretrainedConfig, student: Architecture) -> dict[str, Rescale]:
    """The student multiplies its embedding by sqrt(h') where the teacher does by sqrt(h).

    Where the head is the embedding, the final norm takes the factor back.
    """
    factor = (config.hidden_size / student.hidden) ** 0.5
    rescale = {"model.embed_tokens.weight": Rescale(factor)}
    if config.tie_word_embeddings:
        rescale["model.norm.weight"] = Rescale(1 / factor, offset=1.0)
    return rescale


def _phi3_rotary_fits(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    """Phi-3's configuration checks its long-context factors against hidden size / heads."""
    rope = config.rope_parameters or {}
    factors = rope.get("short_factor")
    if factors is None:
        return a.hidden >= 1
    channels = a.hidden // np.maximum(a.heads, 1) * rope.get("partial_rotary_factor", 1.0)
    return np.floor_divide(channels, 1) // 2 == len(factors)


def _full_layers_first(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """How many of the kept layers come before those that may have a sliding window."""
    return {"max_window_layers": sum(layer < config.max_window_layers for layer in kept)}


LLAMA_LIKE = (
    llama_like(
        "llama",
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        constraints=(HEADS_DIVIDE_HIDDEN,),
    ),
    llama_like("mistral"),
    llama_like(
        "nemotron",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
            "model.norm.bias": ("hidden",),
        },
        layer_tensors={
            **PRE_NORMS,
            "input_layernorm.bias": ("hidden",),
            "post_attention_layernorm.bias": ("hidden",),
            **ATTENTION,
        },
        dense_tensors={
            "mlp.up_proj.weight": ("ffn", "hidden"),
            "mlp.down_proj.weight": ("hidden", "ffn"),
        },
        optional_tensors=BIASED_ATTENTION
        | flagged("mlp_bias", {"mlp.up_proj.bias": ("ffn",), "mlp.down_proj.bias": ("hidden",)}),
        norm_offset=1.0,
    ),
    llama_like(
        "qwen2",
        layer_tensors={**PRE_NORMS, **ATTENTION, **QKV_BIASES},
        cut_pattern=_full_layers_first,
        windows=True,
    ),
    llama_like(
        "qwen3",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        cut_pattern=_full_layers_first,
        windows=True,
    ),
    _gemma("gemma2", {}, windows=True),
    _gemma(
        "gemma3_text",
        HEAD_NORMS,
        periods={
            "sliding_window_pattern": ("layer_types", "full_attention"),
            "_sliding_window_pattern": ("layer_types", "full_attention"),
        },
        older_names=OlderNames(local_rope_theta="rope_local_base_freq"),
    ),
    llama_like(
        "phi3",
        layer_tensors={
            **PRE_NORMS,
            "self_attn.qkv_proj.weight": ("heads+kv_heads+kv_heads", "hidden"),
            "self_attn.o_proj.weight": ("hidden", "heads"),
        },
        dense_tensors={
            "mlp.gate_up_proj.weight": ("ffn+ffn", "hidden"),
            "mlp.down_proj.weight": ("hidden", "ffn"),
        },
        attention_input="self_attn.qkv_proj",
        constraints=(
            Constraint("hidden / heads as in the teacher (long-context rope)", _phi3_rotary_fits),
        ),
        older_names=OlderNames(rope_scaling=("type", "short_factor", "long_factor")),
    ),
    llama_like(  # norms follow the sub-layers; q and k are normed over the whole projection
        "olmo2",
        layer_tensors={
            "post_attention_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            "self_attn.q_norm.weight": ("heads",),
            "self_attn.k_norm.weight": ("kv_heads",),
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("post_attention_layernorm",),
        older_names=OlderNames(rope_scaling=("type", "factor")),
    ),
    llama_like("granite", optional_tensors=BIASED_ATTENTION | BIASED_FFN),
    llama_like(
        "smollm3",
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        per_layer_fields=("layer_types", "no_rope_layers"),
        periods={"no_rope_layer_interval": ("no_rope_layers", 0)},
        windows=True,
    ),
)
