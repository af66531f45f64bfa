"""Rows of Qwen3-Next and Qwen3.5: attention with a gate, and gated delta nets in most layers.

The axes of a delta net are those of a recurrent layer: value heads (`ssm_heads`) and their
channels, key heads (`ssm_groups`), each of which serves some of the former, and the channels of
keys (`ssm_state`). The norm before its output has one weight for the channels of all value heads,
which so have them in one order.
"""

from typing import Any

from transformers import PretrainedConfig

from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM
from pruning.families.spec import Family
from pruning.families.table.common import (
    ATTENTION_BIASES,
    EXPERTS_ALIGNED,
    GATED_FFN,
    HEAD_NORMS,
    LLAMA_FIELDS,
    PRE_NORMS,
    llama_like,
)
from pruning.families.table.mixtures import (
    FUSED_EXPERTS,
    ROUTED,
    ROUTED_FIELDS,
    ROUTER,
    qwen_pattern,
    qwen_sparse,
)
from pruning.families.words import Axes, AxisRows, Recurrence

GATED_ATTENTION: dict[str, Axes] = {
    "self_attn.q_proj.weight": ("gated_heads", "hidden"),
    "self_attn.k_proj.weight": ("kv_heads", "hidden"),
    "self_attn.v_proj.weight": ("kv_heads", "hidden"),
    "self_attn.o_proj.weight": ("hidden", "heads"),
    **ATTENTION_BIASES,
    "self_attn.q_proj.bias": ("gated_heads",),
    **HEAD_NORMS,
}
DELTA_NET: dict[str, Axes] = {
    "linear_attn.conv1d.weight": ("ssm_states+ssm_states+ssm_inner", "1", "conv_kernel"),
    "linear_attn.A_log": ("ssm_heads",),
    "linear_attn.dt_bias": ("ssm_heads",),
    "linear_attn.norm.weight": ("ssm_head_dim",),
    "linear_attn.out_proj.weight": ("hidden", "ssm_inner"),
}
PROJECTIONS_APART: dict[str, Axes] = {
    "linear_attn.in_proj_qkv.weight": ("ssm_states+ssm_states+ssm_inner", "hidden"),
    "linear_attn.in_proj_z.weight": ("ssm_inner", "hidden"),
    "linear_attn.in_proj_b.weight": ("ssm_heads", "hidden"),
    "linear_attn.in_proj_a.weight": ("ssm_heads", "hidden"),
}
PROJECTIONS_BY_KEY_HEAD: dict[str, Axes] = {
    "linear_attn.in_proj_qkvz.weight": ("delta_qkvz", "hidden"),
    "linear_attn.in_proj_ba.weight": ("delta_ba", "hidden"),
}
SHARED_EXPERT: dict[str, Axes] = {
    **ROUTER,
    **ROUTED,
    "mlp.shared_expert.gate_proj.weight": ("shared_ffn", "hidden"),
    "mlp.shared_expert.up_proj.weight": ("shared_ffn", "hidden"),
    "mlp.shared_expert.down_proj.weight": ("hidden", "shared_ffn"),
    "mlp.shared_expert_gate.weight": ("1", "hidden"),
}
MIXERS = {"linear_attention": SSM, "full_attention": ATTENTION}
DELTA_FIELDS = {
    "ssm_heads": "linear_num_value_heads",
    "ssm_head_dim": "linear_value_head_dim",
    "ssm_groups": "linear_num_key_heads",
    "ssm_state": "linear_key_head_dim",
}
EXPERT_FIELDS = {
    "experts": "num_experts",
    "expert_ffn": "moe_intermediate_size",
    "shared_ffn": "shared_expert_intermediate_size",
}


def _parts(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    ffn = EXPERTS if family.is_sparse(config, layer) else FFN
    return MIXERS[config.layer_types[layer]], ffn


def _rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    return {
        "gated_heads": AxisRows("heads", 2 * config.head_dim),  # of each head its query, its gate
        "conv_kernel": AxisRows(rows=config.linear_conv_kernel_dim),
        "delta_qkvz": AxisRows("ssm_groups", joined="ssm_states+ssm_states+ssm_inner+ssm_inner"),
        "delta_ba": AxisRows("ssm_groups", joined="ssm_heads+ssm_heads"),
    }


def _with_delta_nets(
    model_type: str, projections: dict[str, Axes], *, observed: str, **row: Any
) -> Family:
    """A row whose delta nets have these `projections`; the one with queries, keys and values is
    called `observed`."""
    common: dict[str, Any] = {
        "layer_tensors": PRE_NORMS,
        "attention_tensors": GATED_ATTENTION,
        "ssm_tensors": DELTA_NET | projections,
        "flags": dict.fromkeys(ATTENTION_BIASES, ("attention_bias",)),
        "parts_of": _parts,
        "axis_rows": _rows,
        "norm_offset": 1.0,
        "shared_channels": True,
        "recurrence": Recurrence(
            input=f"linear_attn.{observed}",
            queries=0,
            keys=1,
            channels=2,
            output="linear_attn.out_proj",
            conv_kernel="linear_conv_kernel_dim",
            norm="linear_attn.norm",
            norm_gated=lambda config: False,
            state_flops=7,  # what is written is first corrected by what would be read
        ),
        "spanning_norms": {"linear_attn.norm.weight": ""},
        "periods": {"full_attention_interval": ("layer_types", "full_attention")},
    }
    return llama_like(model_type, **(common | row))


def _mixture(model_type: str, projections: dict[str, Axes], *, observed: str, **row: Any) -> Family:
    common: dict[str, Any] = {
        "expert_tensors": SHARED_EXPERT,
        "fused_experts": FUSED_EXPERTS,
        "experts_module": "mlp.experts",
        "expert_output": "mlp.experts.{expert}.down_proj.weight",
        "shared_output": "mlp.shared_expert.down_proj",
        "constraints": (EXPERTS_ALIGNED,),
    }
    return _with_delta_nets(model_type, projections, observed=observed, **(common | row))


DELTA_NETS = (
    _with_delta_nets(
        "qwen3_5_text",
        PROJECTIONS_APART,
        observed="in_proj_qkv",
        dense_tensors=GATED_FFN,
        fields=LLAMA_FIELDS | DELTA_FIELDS,
    ),
    _mixture(
        "qwen3_5_moe_text",
        PROJECTIONS_APART,
        observed="in_proj_qkv",
        dense_tensors={},
        is_sparse=lambda config, layer: True,
        fields=ROUTED_FIELDS | DELTA_FIELDS | EXPERT_FIELDS,
    ),
    _mixture(
        "qwen3_next",
        PROJECTIONS_BY_KEY_HEAD,
        observed="in_proj_qkvz",
        dense_tensors=GATED_FFN,
        is_sparse=qwen_sparse,
        cut_pattern=qwen_pattern,
        fields=LLAMA_FIELDS | DELTA_FIELDS | EXPERT_FIELDS,
    ),
)
