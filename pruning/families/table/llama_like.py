"""Rows of dense models with Llama's layout or a variation of it."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.spec import Constraint
from pruning.families.table.common import (
    ATTENTION,
    ATTENTION_BIASES,
    BIASED_ATTENTION,
    BIASED_FFN,
    BIASED_PLAIN_FFN,
    BIASED_QKV,
    FFN_BIASES,
    FUSED_GATED_FFN,
    HEAD_NORMS,
    HEADS_DIVIDE_HIDDEN,
    HIDDEN_FOLLOWS_HEADS,
    PLAIN_FFN,
    PRE_NORMS,
    QKV_BIASES,
    flagged,
    llama_like,
    rows_of_heads,
)
from pruning.families.words import OlderNames


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
    *(  # Llama under another name
        llama_like(
            name,
            optional_tensors=BIASED_ATTENTION | BIASED_FFN,
            constraints=(HEADS_DIVIDE_HIDDEN,),
        )
        for name in ("internlm3", "iquestcoder")
    ),
    llama_like("mistral"),
    llama_like("ministral", windows=True),
    llama_like("ministral3"),  # queries scaled by place in the text, which no size changes
    llama_like(  # rotary embedding in every layer alike, windows in most
        "cwm",
        optional_tensors=BIASED_FFN,
        constraints=(HEADS_DIVIDE_HIDDEN,),
        windows=True,
    ),
    llama_like(  # norms of each head, which follow the rotary embedding
        "hunyuan_v1_dense",
        layer_tensors={
            **PRE_NORMS,
            **ATTENTION,
            "self_attn.query_layernorm.weight": ("head_dim",),
            "self_attn.key_layernorm.weight": ("head_dim",),
        },
        optional_tensors=BIASED_ATTENTION,
    ),
    llama_like("glm", dense_tensors=FUSED_GATED_FFN, optional_tensors=BIASED_QKV),
    llama_like(
        "seed_oss",
        optional_tensors=BIASED_QKV
        | flagged("attention_out_bias", {"self_attn.o_proj.bias": ("hidden",)})
        | BIASED_FFN,
    ),
    llama_like(  # its output projection is square
        "helium",
        optional_tensors=BIASED_QKV | BIASED_FFN,
        constraints=(HIDDEN_FOLLOWS_HEADS,),
    ),
    llama_like(
        "arcee",
        dense_tensors=PLAIN_FFN,
        optional_tensors=BIASED_ATTENTION | BIASED_PLAIN_FFN,
        constraints=(HEADS_DIVIDE_HIDDEN,),
    ),
    llama_like(  # an activation with parameters of its own
        "apertus",
        layer_tensors={
            "attention_layernorm.weight": ("hidden",),
            "feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            **HEAD_NORMS,
        },
        dense_tensors={
            **PLAIN_FFN,
            "mlp.act_fn.alpha_p": ("1",),
            "mlp.act_fn.alpha_n": ("1",),
            "mlp.act_fn.beta": (),
            "mlp.act_fn.eps": (),
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("attention_layernorm",),
        buffers=("mlp.act_fn.beta", "mlp.act_fn.eps"),
    ),
    llama_like("ernie4_5", optional_tensors=flagged("use_bias", ATTENTION_BIASES | FFN_BIASES)),
    llama_like(  # norms without weights
        "olmo",
        model_tensors={"model.embed_tokens.weight": ("vocab", "hidden")},
        layer_tensors=ATTENTION,
        optional_tensors=BIASED_ATTENTION,
    ),
    llama_like(  # norms without weights, of the embedding too
        "nanochat",
        model_tensors={"model.embed_tokens.weight": ("vocab", "hidden")},
        layer_tensors=ATTENTION,
        dense_tensors={
            "mlp.fc1.weight": ("ffn", "hidden"),
            "mlp.fc2.weight": ("hidden", "ffn"),
        },
        optional_tensors=BIASED_ATTENTION,
        ffn_output="mlp.fc2",
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
    llama_like(
        "phi3",
        layer_tensors={
            **PRE_NORMS,
            "self_attn.qkv_proj.weight": ("heads+kv_heads+kv_heads", "hidden"),
            "self_attn.o_proj.weight": ("hidden", "heads"),
        },
        dense_tensors=FUSED_GATED_FFN,
        attention_input="self_attn.qkv_proj",
        constraints=(
            Constraint("hidden / heads as in the teacher (long-context rope)", _phi3_rotary_fits),
        ),
        older_names=OlderNames(rope_scaling=("type", "short_factor", "long_factor")),
    ),
    llama_like("granite", optional_tensors=BIASED_ATTENTION | BIASED_FFN),
    llama_like(  # a sink for each head, and a rotary base for each layer, or none
        "granite_swa",
        layer_tensors={**PRE_NORMS, **ATTENTION, "self_attn.sinks": ("each_head",)},
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        axis_rows=rows_of_heads,
        per_layer_fields=("layer_types", "layer_rope_theta"),
        windows=True,
    ),
    llama_like(
        "smollm3",
        optional_tensors=BIASED_ATTENTION | BIASED_FFN,
        per_layer_fields=("layer_types", "no_rope_layers"),
        periods={"no_rope_layer_interval": ("no_rope_layers", 0)},
        windows=True,
    ),
)
