"""Rows of LFM2: attention or a gated short convolution in a layer, and then an FFN or experts.

A convolution has as many channels as the residual stream, in an order of their own: they are the
heads (`ssm_heads`), of one channel each, of a layer whose state is the last tokens alone.
"""

from fractions import Fraction
from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Architecture, Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM
from pruning.families.spec import Constraint, Family
from pruning.families.table.common import EXPERTS_ALIGNED, LLAMA_FIELDS, llama_like
from pruning.families.table.mixtures import FUSED_EXPERTS
from pruning.families.words import Axes, AxisRows, OlderNames, Recurrence

MIXERS = {"conv": SSM, "full_attention": ATTENTION}
CONVOLUTION: dict[str, Axes] = {
    "conv.in_proj.weight": ("ssm_heads+ssm_heads+ssm_heads", "hidden"),
    "conv.in_proj.bias": ("ssm_heads+ssm_heads+ssm_heads",),
    "conv.conv.weight": ("ssm_heads", "1", "conv_kernel"),
    "conv.conv.bias": ("ssm_heads",),
    "conv.out_proj.weight": ("hidden", "ssm_heads"),
    "conv.out_proj.bias": ("hidden",),
}
CONVOLUTION_BIASES = ("conv.in_proj.bias", "conv.conv.bias", "conv.out_proj.bias")


def _parts(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    ffn = EXPERTS if family.is_sparse(config, layer) else FFN
    return MIXERS[config.layer_types[layer]], ffn


def _rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    return {"conv_kernel": AxisRows(rows=config.conv_L_cache)}


def _sizes(config: PretrainedConfig) -> dict[str, int]:
    return {"ssm_heads": config.hidden_size, "ssm_head_dim": 1, "ssm_groups": 1, "ssm_state": 0}


def _adjusted_sizes(config: PretrainedConfig) -> dict[str, int]:
    """The FFN is narrower than the configuration says, where that asks for it."""
    ffn = config.intermediate_size
    if config.block_auto_adjust_ff_dim:
        ffn = int(2 * ffn / 3)
        if config.block_ffn_dim_multiplier is not None:
            multiple = config.block_multiple_of
            ffn = int(config.block_ffn_dim_multiplier * ffn)
            ffn = multiple * ((ffn + multiple - 1) // multiple)
    return _sizes(config) | {"ffn": ffn}


def _unadjusted(student: Architecture) -> dict[str, Any]:
    return {"intermediate_size": student.ffn, "block_auto_adjust_ff_dim": False}


def _attention_layers(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    attending = config.full_attn_idxs
    if attending is None:
        return {}
    return {"full_attn_idxs": [place for place, layer in enumerate(kept) if layer in attending]}


def _dense_first(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    return {"num_dense_layers": sum(layer < config.num_dense_layers for layer in kept)}


def _as_wide(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return a.ssm_heads == a.hidden


CONVOLUTION_AS_WIDE = Constraint(
    "convolutions of as many channels (ssm_heads) as the hidden size has", _as_wide
)


def _lfm2(model_type: str, **row: Any) -> Family:
    common: dict[str, Any] = {
        "model_tensors": {
            "model.embed_tokens.weight": ("vocab", "hidden"),
            "model.embedding_norm.weight": ("hidden",),
        },
        "layer_tensors": {
            "operator_norm.weight": ("hidden",),
            "ffn_norm.weight": ("hidden",),
        },
        "attention_tensors": {
            "self_attn.q_proj.weight": ("heads", "hidden"),
            "self_attn.k_proj.weight": ("kv_heads", "hidden"),
            "self_attn.v_proj.weight": ("kv_heads", "hidden"),
            "self_attn.out_proj.weight": ("hidden", "heads"),
            "self_attn.q_layernorm.weight": ("head_dim",),
            "self_attn.k_layernorm.weight": ("head_dim",),
        },
        "ssm_tensors": CONVOLUTION,
        "dense_tensors": {
            "feed_forward.w1.weight": ("ffn", "hidden"),
            "feed_forward.w3.weight": ("ffn", "hidden"),
            "feed_forward.w2.weight": ("hidden", "ffn"),
        },
        "flags": dict.fromkeys(CONVOLUTION_BIASES, ("conv_bias",)),
        "parts_of": _parts,
        "axis_rows": _rows,
        "attention_input": "self_attn.q_proj",
        "attention_output": "self_attn.out_proj",
        "attention_norms": ("operator_norm",),
        "ffn_input": "feed_forward",
        "ffn_output": "feed_forward.w2",
        "recurrence": Recurrence(
            input="conv.in_proj", output="conv.out_proj", conv_kernel="conv_L_cache"
        ),
        "hidden_follows": lambda config: ("ssm_heads", Fraction(1)),
    }
    return llama_like(model_type, **(common | row))


SHORT_CONVOLUTIONS = (
    _lfm2(
        "lfm2",
        sizes_of=_adjusted_sizes,
        fields_of=_unadjusted,
        cut_pattern=_attention_layers,
        constraints=(CONVOLUTION_AS_WIDE,),
        older_names=OlderNames(overriding={"block_ff_dim": "intermediate_size"}),
    ),
    _lfm2(
        "lfm2_moe",
        expert_tensors={
            "feed_forward.gate.weight": ("experts", "hidden"),
            "feed_forward.expert_bias": ("experts",),
            "feed_forward.experts.{expert}.w1.weight": ("expert_ffn", "hidden"),
            "feed_forward.experts.{expert}.w3.weight": ("expert_ffn", "hidden"),
            "feed_forward.experts.{expert}.w2.weight": ("hidden", "expert_ffn"),
        },
        fused_experts={
            name.replace("mlp.", "feed_forward."): axes for name, axes in FUSED_EXPERTS.items()
        },
        flags=dict.fromkeys(CONVOLUTION_BIASES, ("conv_bias",))
        | {"feed_forward.expert_bias": ("use_expert_bias",)},
        buffers=("feed_forward.expert_bias",),
        experts_module="feed_forward.experts",
        expert_output="feed_forward.experts.{expert}.w2.weight",
        is_sparse=lambda config, layer: layer >= config.num_dense_layers,
        cut_pattern=_dense_first,
        sizes_of=_sizes,
        fields=LLAMA_FIELDS | {"experts": "num_experts", "expert_ffn": "moe_intermediate_size"},
        constraints=(CONVOLUTION_AS_WIDE, EXPERTS_ALIGNED),
    ),
)
