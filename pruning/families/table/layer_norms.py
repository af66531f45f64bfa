"""Rows of models with Llama's parts and layer norms, which take off the mean."""

from pruning.families.spec import Constraint
from pruning.families.table.common import (
    ATTENTION,
    ATTENTION_BIASES,
    BIASED_ATTENTION,
    BIASED_PLAIN_FFN,
    HEADS_DIVIDE_HIDDEN,
    HIDDEN_FOLLOWS_HEADS,
    PLAIN_FFN,
    PRE_NORMS,
    QKV_BIASES,
    flagged,
    llama_like,
    with_biases,
)

LAYER_NORMED = {
    "model.embed_tokens.weight": ("vocab", "hidden"),
    "model.norm.weight": ("hidden",),
    "model.norm.bias": ("hidden",),
}

LAYER_NORMS = (
    llama_like(
        "nemotron",
        model_tensors=LAYER_NORMED,
        layer_tensors={**with_biases(PRE_NORMS), **ATTENTION},
        dense_tensors=PLAIN_FFN,
        optional_tensors=BIASED_ATTENTION | BIASED_PLAIN_FFN,
        norm_offset=1.0,
    ),
    llama_like(
        "jais2",
        model_tensors=LAYER_NORMED,
        layer_tensors={**with_biases(PRE_NORMS), **ATTENTION},
        dense_tensors=PLAIN_FFN,
        optional_tensors=BIASED_ATTENTION | BIASED_PLAIN_FFN,
        constraints=(HEADS_DIVIDE_HIDDEN,),
    ),
    llama_like(
        "starcoder2",
        model_tensors=LAYER_NORMED,
        layer_tensors={**with_biases(PRE_NORMS), **ATTENTION},
        dense_tensors={
            "mlp.c_fc.weight": ("ffn", "hidden"),
            "mlp.c_proj.weight": ("hidden", "ffn"),
        },
        optional_tensors=flagged(
            "use_bias",
            {**ATTENTION_BIASES, "mlp.c_fc.bias": ("ffn",), "mlp.c_proj.bias": ("hidden",)},
        ),
        ffn_output="mlp.c_proj",
    ),
    llama_like(
        "stablelm",
        model_tensors=LAYER_NORMED,
        layer_tensors={**with_biases(PRE_NORMS), **ATTENTION},
        optional_tensors=flagged("use_qkv_bias", QKV_BIASES),
        has_head_dim=False,
        constraints=(
            HIDDEN_FOLLOWS_HEADS,
            Constraint(
                "a teacher without qk_layernorm (its heads have a norm each)",
                lambda config, a: (a.layers >= 1) & (not config.qk_layernorm),
            ),
            Constraint(
                "a teacher without use_parallel_residual (its layers lack a norm)",
                lambda config, a: (a.layers >= 1) & (not config.use_parallel_residual),
            ),
        ),
    ),
)
