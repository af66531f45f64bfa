"""Rows of Bamba and Granite 4: Mamba-2 or attention in a layer, and then an FFN or experts.

The width of a mixer is a whole multiple of the hidden size (`mamba_expand`), so that its heads, or
their channels, are cut together with that.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM
from pruning.families.spec import Constraint, Family
from pruning.families.table.common import ATTENTION as ATTENTION_TENSORS
from pruning.families.table.common import ATTENTION_BIASES, EXPERTS_ALIGNED, LLAMA_FIELDS
from pruning.families.table.hybrids.mamba import (
    GATED_FFN_BIASES,
    GATED_FFN_WEIGHTS,
    MAMBA,
    MAMBA_FIELDS,
    mamba_recurrence,
    within,
)
from pruning.families.table.mixtures import GRANITE, GRANITE_EXPERTS
from pruning.families.words import AxisRows

MIXERS = {"linear_attention": SSM, "full_attention": ATTENTION}


def _mixer_and_ffn(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    ffn = EXPERTS if family.is_sparse(config, layer) else FFN
    return MIXERS[config.layer_types[layer]], ffn


def _rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    return {"conv_kernel": AxisRows(rows=config.mamba_d_conv)}


def _expanded(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return a.ssm_heads * a.ssm_head_dim == config.mamba_expand * a.hidden


def _hidden_per_head(config: PretrainedConfig) -> tuple[str, Fraction]:
    return "ssm_heads", Fraction(config.mamba_d_head, config.mamba_expand)


def _attention_layers(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    attending = config.attn_layer_indices or []
    return {"attn_layer_indices": [p for p, layer in enumerate(kept) if layer in attending]}


def _aligned(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return np.equal(a.experts, 0) | EXPERTS_ALIGNED.holds(config, a)


EXPANDED = Constraint(
    "Mamba heads x channels that are mamba_expand times the hidden size (a whole number in its "
    "configuration: cut them together)",
    _expanded,
)
COMMON: dict[str, Any] = {
    "output_head": ("lm_head.weight", ("vocab", "hidden")),
    "layer_prefix": "model.layers",
    "attention_tensors": ATTENTION_TENSORS | ATTENTION_BIASES,
    "ssm_tensors": within("mamba", MAMBA),
    "parts_of": _mixer_and_ffn,
    "axis_rows": _rows,
    "attention_input": "self_attn.q_proj",
    "attention_output": "self_attn.o_proj",
    "recurrence": mamba_recurrence("mamba", conv_kernel="mamba_d_conv"),
    "spanning_norms": {"mamba.norm.weight": "ssm_groups"},
    "hidden_follows": _hidden_per_head,
}
FLAGS = {
    **dict.fromkeys(ATTENTION_BIASES, ("attention_bias",)),
    "mamba.in_proj.bias": ("mamba_proj_bias",),
    "mamba.out_proj.bias": ("mamba_proj_bias",),
    "mamba.conv1d.bias": ("mamba_conv_bias",),
}
EXPANDED_MAMBA = (
    Family(
        "bamba",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.final_layernorm.weight": ("hidden",),
        },
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "pre_ff_layernorm.weight": ("hidden",),
        },
        dense_tensors=within("feed_forward", GATED_FFN_WEIGHTS | GATED_FFN_BIASES),
        flags=FLAGS | dict.fromkeys(within("feed_forward", GATED_FFN_BIASES), ("mlp_bias",)),
        fields=LLAMA_FIELDS | MAMBA_FIELDS,
        ffn_input="feed_forward",
        ffn_output="feed_forward.down_proj",
        cut_pattern=_attention_layers,
        constraints=(EXPANDED,),
        **COMMON,
    ),
    Family(
        "granitemoehybrid",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.norm.weight": ("hidden",),
        },
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "post_attention_layernorm.weight": ("hidden",),
        },
        dense_tensors={
            "shared_mlp.input_linear.weight": ("ffn+ffn", "hidden"),
            "shared_mlp.output_linear.weight": ("hidden", "ffn"),
        },
        expert_tensors={
            **GRANITE_EXPERTS,
            "shared_mlp.input_linear.weight": ("shared_ffn+shared_ffn", "hidden"),
            "shared_mlp.output_linear.weight": ("hidden", "shared_ffn"),
        },
        fused_experts={
            **GRANITE["fused_experts"],
            "shared_mlp.input_linear.weight": ("shared_ffn+shared_ffn", "hidden"),
            "shared_mlp.output_linear.weight": ("hidden", "shared_ffn"),
        },
        is_sparse=lambda config, layer: config.num_local_experts > 0,
        flags=FLAGS,
        fields={  # what is an FFN without experts is the shared one with them
            **LLAMA_FIELDS,
            "ffn": "shared_intermediate_size",
            "experts": "num_local_experts",
            "expert_ffn": "intermediate_size",
            "shared_ffn": "shared_intermediate_size",
            **MAMBA_FIELDS,
        },
        ffn_input="shared_mlp",
        ffn_output="shared_mlp.output_linear",
        shared_output="shared_mlp.output_linear",
        experts_module=GRANITE["experts_module"],
        expert_output=GRANITE["expert_output"],
        constraints=(EXPANDED, Constraint(EXPERTS_ALIGNED.rule, _aligned)),
        **COMMON,
    ),
)
