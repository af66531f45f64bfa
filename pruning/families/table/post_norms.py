"""Rows of models with norms after attention and FFN."""

from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    BIASED_FFN,
    BIASED_QKV,
    FUSED_GATED_FFN,
    HEAD_NORMS,
    HEADS_DIVIDE_HIDDEN,
    PRE_NORMS,
    flagged,
    llama_like,
)
from pruning.families.words import OlderNames

POST_NORMS = {
    "post_attention_layernorm.weight": ("hidden",),
    "post_feedforward_layernorm.weight": ("hidden",),
}
OLMO_LAYER = {
    **POST_NORMS,
    **ATTENTION,
    "self_attn.q_norm.weight": ("heads",),
    "self_attn.k_norm.weight": ("kv_heads",),
}
"""Queries and keys are normed over the whole projection."""
OVER_PROJECTION = {"self_attn.q_norm.weight": "", "self_attn.k_norm.weight": ""}

POST_NORMED = (
    llama_like(
        "olmo2",
        layer_tensors=OLMO_LAYER,
        spanning_norms=OVER_PROJECTION,
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("post_attention_layernorm",),
        older_names=OlderNames(rope_scaling=("type", "factor")),
    ),
    llama_like(  # layers with a window have a rotary embedding of their own, without scaling
        "olmo3",
        layer_tensors=OLMO_LAYER,
        spanning_norms=OVER_PROJECTION,
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("post_attention_layernorm",),
    ),
    llama_like(  # beside layers with a window, those without have no rotary embedding
        "exaone4",
        layer_tensors={**POST_NORMS, **ATTENTION, **HEAD_NORMS},
        attention_norms=("post_attention_layernorm",),
        periods={"sliding_window_pattern": ("layer_types", "full_attention")},
    ),
    llama_like(
        "glm4",
        layer_tensors={
            **PRE_NORMS,
            "post_self_attn_layernorm.weight": ("hidden",),
            "post_mlp_layernorm.weight": ("hidden",),
            **ATTENTION,
        },
        dense_tensors=FUSED_GATED_FFN,
        optional_tensors=BIASED_QKV,
        attention_norms=("input_layernorm", "post_self_attn_layernorm"),
    ),
    llama_like(  # multipliers that no size changes
        "hyperclovax",
        optional_tensors=BIASED_ATTENTION
        | BIASED_FFN
        | flagged(
            "use_post_norm",
            {"post_norm1.weight": ("hidden",), "post_norm2.weight": ("hidden",)},
        ),
        attention_norms=("input_layernorm", "post_norm1"),
        constraints=(HEADS_DIVIDE_HIDDEN,),
    ),
)
