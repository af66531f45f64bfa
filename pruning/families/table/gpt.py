"""Rows with GPT-2's parts: layer norms, biases, one projection for query, key and value."""

from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.spec import Constraint, Family
from pruning.families.table.common import (
    HIDDEN_FOLLOWS_HEADS,
    PRE_NORMS,
    flagged,
    with_biases,
)
from pruning.families.words import OlderNames


def _gpt2_keeps_depth(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    scaled = getattr(config, "scale_attn_by_inverse_layer_idx", False)
    return (a.layers == config.num_hidden_layers) | (not scaled)


GPT_LIKE = (
    Family(
        "gpt2",  # Conv1D weights are [in, out]
        model_tensors={
            "transformer.wte.weight": ("vocab", "hidden"),
            "transformer.wpe.weight": ("positions", "hidden"),
            "transformer.ln_f.weight": ("hidden",),
            "transformer.ln_f.bias": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="transformer.h",
        layer_tensors={
            "ln_1.weight": ("hidden",),
            "ln_1.bias": ("hidden",),
            "attn.c_attn.weight": ("hidden", "heads+heads+heads"),
            "attn.c_attn.bias": ("heads+heads+heads",),
            "attn.c_proj.weight": ("heads", "hidden"),
            "attn.c_proj.bias": ("hidden",),
            "ln_2.weight": ("hidden",),
            "ln_2.bias": ("hidden",),
        },
        dense_tensors={
            "mlp.c_fc.weight": ("hidden", "ffn"),
            "mlp.c_fc.bias": ("ffn",),
            "mlp.c_proj.weight": ("ffn", "hidden"),
            "mlp.c_proj.bias": ("hidden",),
        },
        fields={"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner"},
        attention_input="attn.c_attn",
        attention_output="attn.c_proj",
        attention_norms=("ln_1",),
        ffn_input="mlp",
        ffn_output="mlp.c_proj",
        has_head_dim=False,
        constraints=(
            HIDDEN_FOLLOWS_HEADS,
            Constraint(
                "all its layers (scale_attn_by_inverse_layer_idx ties them to their places)",
                _gpt2_keeps_depth,
            ),
        ),
        derived=(".attn.bias", ".attn.masked_bias"),
        older_names=OlderNames(copies={"n_ctx": "n_positions"}),
    ),
    Family(
        "gpt_neox",  # query, key and value interleaved head by head
        model_tensors={
            "gpt_neox.embed_in.weight": ("vocab", "hidden"),
            "gpt_neox.final_layer_norm.weight": ("hidden",),
            "gpt_neox.final_layer_norm.bias": ("hidden",),
        },
        output_head=("embed_out.weight", ("vocab", "hidden")),
        layer_prefix="gpt_neox.layers",
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "input_layernorm.bias": ("hidden",),
            "post_attention_layernorm.weight": ("hidden",),
            "post_attention_layernorm.bias": ("hidden",),
            "attention.query_key_value.weight": ("qkv_heads", "hidden"),
            "attention.dense.weight": ("hidden", "heads"),
        },
        dense_tensors={
            "mlp.dense_h_to_4h.weight": ("ffn", "hidden"),
            "mlp.dense_h_to_4h.bias": ("ffn",),
            "mlp.dense_4h_to_h.weight": ("hidden", "ffn"),
            "mlp.dense_4h_to_h.bias": ("hidden",),
        },
        optional_tensors=flagged(
            "attention_bias",
            {
                "attention.query_key_value.bias": ("qkv_heads",),
                "attention.dense.bias": ("hidden",),
            },
        ),
        fields={
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "heads": "num_attention_heads",
            "ffn": "intermediate_size",
        },
        attention_input="attention.query_key_value",
        attention_output="attention.dense",
        ffn_input="mlp",
        ffn_output="mlp.dense_4h_to_h",
        has_head_dim=False,
        constraints=(HIDDEN_FOLLOWS_HEADS,),
        derived=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
        older_names=OlderNames(
            rope={"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        ),
    ),
    Family(
        "persimmon",  # query, key and value interleaved head by head, as in GPT-NeoX
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.final_layernorm.weight": ("hidden",),
            "model.final_layernorm.bias": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="model.layers",
        layer_tensors={
            **with_biases(PRE_NORMS),
            "self_attn.query_key_value.weight": ("qkv_heads", "hidden"),
            "self_attn.query_key_value.bias": ("qkv_heads",),
            "self_attn.dense.weight": ("hidden", "heads"),
            "self_attn.dense.bias": ("hidden",),
        },
        dense_tensors={
            "mlp.dense_h_to_4h.weight": ("ffn", "hidden"),
            "mlp.dense_h_to_4h.bias": ("ffn",),
            "mlp.dense_4h_to_h.weight": ("hidden", "ffn"),
            "mlp.dense_4h_to_h.bias": ("hidden",),
        },
        optional_tensors=flagged(
            "qk_layernorm",
            with_biases(
                {
                    "self_attn.q_layernorm.weight": ("head_dim",),
                    "self_attn.k_layernorm.weight": ("head_dim",),
                }
            ),
        ),
        fields={
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "heads": "num_attention_heads",
            "ffn": "intermediate_size",
        },
        attention_input="self_attn.query_key_value",
        attention_output="self_attn.dense",
        ffn_input="mlp",
        ffn_output="mlp.dense_4h_to_h",
        has_head_dim=False,
        constraints=(HIDDEN_FOLLOWS_HEADS,),
    ),
)
