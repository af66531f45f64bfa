"""Rows of models whose attention and FFN read the same norm and are added together."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.spec import Constraint, Family
from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    HIDDEN_FOLLOWS_HEADS,
    QKV_BIASES,
    flagged,
    llama_like,
    rows_of_heads,
    with_biases,
)
from pruning.families.words import Axes


def _cohere(model_type: str, **row: Any) -> Family:
    """Layer norms without biases; logits times a constant that no size changes."""
    cohere: dict[str, Any] = {
        "layer_tensors": {"input_layernorm.weight": ("hidden",), **ATTENTION},
        "optional_tensors": BIASED_ATTENTION,
        "attention_norms": (),
        "shared_norms": ("input_layernorm",),
    }
    return llama_like(model_type, **(cohere | row))


def _phi_norms_fit(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    """Norms of queries and keys are built with hidden size / heads channels."""
    fits = HIDDEN_FOLLOWS_HEADS.holds(config, a)
    return fits if config.qk_layernorm else np.asarray(a.layers) >= 1


FC1_FC2: dict[str, Axes] = {
    "mlp.fc1.weight": ("ffn", "hidden"),
    "mlp.fc1.bias": ("ffn",),
    "mlp.fc2.weight": ("hidden", "ffn"),
    "mlp.fc2.bias": ("hidden",),
}

PARALLEL = (
    _cohere(
        "cohere",
        optional_tensors=BIASED_ATTENTION
        | flagged(
            "use_qk_norm",
            {
                "self_attn.q_norm.weight": ("each_head", "head_dim"),
                "self_attn.k_norm.weight": ("each_kv_head", "head_dim"),
            },
        ),
        axis_rows=rows_of_heads,
    ),
    _cohere(  # layers without a window have no rotary embedding
        "cohere2",
        periods={
            "sliding_window_pattern": ("layer_types", "full_attention"),
            "_sliding_window_pattern": ("layer_types", "full_attention"),
        },
    ),
    llama_like(
        "phi",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.final_layernorm.weight": ("hidden",),
            "model.final_layernorm.bias": ("hidden",),
            "lm_head.bias": ("vocab",),
        },
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "input_layernorm.bias": ("hidden",),
            "self_attn.q_proj.weight": ("heads", "hidden"),
            "self_attn.k_proj.weight": ("kv_heads", "hidden"),
            "self_attn.v_proj.weight": ("kv_heads", "hidden"),
            **QKV_BIASES,
            "self_attn.dense.weight": ("hidden", "heads"),
            "self_attn.dense.bias": ("hidden",),
        },
        dense_tensors=FC1_FC2,
        optional_tensors=flagged(
            "qk_layernorm",
            with_biases(
                {
                    "self_attn.q_layernorm.weight": ("head_dim",),
                    "self_attn.k_layernorm.weight": ("head_dim",),
                }
            ),
        ),
        attention_output="self_attn.dense",
        ffn_output="mlp.fc2",
        attention_norms=(),
        shared_norms=("input_layernorm",),
        constraints=(
            Constraint(
                "a hidden size of as many heads as it has (norms of queries and keys)",
                _phi_norms_fit,
            ),
        ),
    ),
)
