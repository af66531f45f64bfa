"""Row of Falcon-H1: attention and Mamba-2 beside each other in every layer, and then an FFN."""

from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Architecture
from pruning.families.block import ATTENTION, FFN, SSM
from pruning.families.spec import Family
from pruning.families.table.common import ATTENTION as ATTENTION_TENSORS
from pruning.families.table.common import ATTENTION_BIASES, LLAMA_FIELDS
from pruning.families.table.hybrids.mamba import (
    GATED_FFN_BIASES,
    GATED_FFN_WEIGHTS,
    MAMBA,
    MAMBA_FIELDS,
    mamba_recurrence,
    within,
)
from pruning.families.words import AxisRows


def _all_three(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    return ATTENTION, SSM, FFN


def _inner_width(student: Architecture) -> dict[str, Any]:
    """What tells the model where the parts of the projection begin that it multiplies."""
    return {"mamba_d_ssm": student.ssm_heads * student.ssm_head_dim}


def _rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    return {"conv_kernel": AxisRows(rows=config.mamba_d_conv)}


FALCON_H1 = (
    Family(
        "falcon_h1",
        model_tensors={
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.final_layernorm.weight": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="model.layers",
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "pre_ff_layernorm.weight": ("hidden",),
        },
        attention_tensors=ATTENTION_TENSORS | ATTENTION_BIASES,
        ssm_tensors=within("mamba", MAMBA),
        dense_tensors=within("feed_forward", GATED_FFN_WEIGHTS | GATED_FFN_BIASES),
        flags={
            **dict.fromkeys(ATTENTION_BIASES, ("attention_bias",)),
            **dict.fromkeys(within("feed_forward", GATED_FFN_BIASES), ("mlp_bias",)),
            "mamba.in_proj.bias": ("mamba_proj_bias",),
            "mamba.out_proj.bias": ("projectors_bias",),
            "mamba.conv1d.bias": ("mamba_conv_bias",),
            "mamba.norm.weight": ("mamba_rms_norm",),
        },
        parts_of=_all_three,
        axis_rows=_rows,
        fields=LLAMA_FIELDS | MAMBA_FIELDS,
        fields_of=_inner_width,
        attention_input="self_attn.q_proj",
        attention_output="self_attn.o_proj",
        ffn_input="feed_forward",
        ffn_output="feed_forward.down_proj",
        recurrence=mamba_recurrence(
            "mamba",
            conv_kernel="mamba_d_conv",
            norm_gated=lambda config: not config.mamba_norm_before_gate,
        ),
        spanning_norms={"mamba.norm.weight": "ssm_groups"},
    ),
)
