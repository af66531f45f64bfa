"""Rows of mixtures with an expert that every token is sent to beside those that are routed to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Architecture, Sizes
from pruning.families.spec import Constraint, Family, transposed_expert
from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    EXPERTS_ALIGNED,
    HEAD_NORMS,
    LLAMA_FIELDS,
    PRE_NORMS,
    QKV_BIASES,
    flagged,
)
from pruning.families.table.mixtures import (
    GRANITE,
    GRANITE_EXPERTS,
    ROUTED,
    ROUTED_FIELDS,
    ROUTER,
    mixture,
    qwen_pattern,
    qwen_sparse,
    routed,
)
from pruning.families.words import Axes, AxisRows

CORRECTION = "mlp.gate.e_score_correction_bias"


def _shared(module: str) -> dict[str, Axes]:
    """A gated FFN that every token is sent to."""
    return {
        f"{module}.gate_proj.weight": ("shared_ffn", "hidden"),
        f"{module}.up_proj.weight": ("shared_ffn", "hidden"),
        f"{module}.down_proj.weight": ("hidden", "shared_ffn"),
    }


def _multiple(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return a.shared_ffn % np.maximum(a.expert_ffn, 1) == 0


def _same(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return a.shared_ffn == a.expert_ffn


WHOLE_SHARED_EXPERTS = Constraint("shared experts as wide as the others, one or more", _multiple)
ONE_SHARED_EXPERT = Constraint("a shared expert as wide as the others", _same)


def _several(count: str) -> dict[str, Any]:
    """Parts of a row whose configuration says in `count` how many experts of the width of the
    others are shared."""

    def sizes_of(config: PretrainedConfig) -> dict[str, int]:
        return {"shared_ffn": (getattr(config, count) or 0) * config.moe_intermediate_size}

    def fields_of(architecture: Architecture) -> dict[str, int]:
        if not architecture.expert_ffn:
            return {}
        return {count: architecture.shared_ffn // architecture.expert_ffn}

    return {"sizes_of": sizes_of, "fields_of": fields_of}


def _later_sparse(config: PretrainedConfig, layer: int) -> bool:
    return layer >= int(config.first_k_dense_replace or 0)


def _later_pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """How many of the kept layers come before those with experts."""
    return _one_token(config, kept) | {
        "first_k_dense_replace": sum(not _later_sparse(config, n) for n in kept)
    }


def _one_token(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """No layers that predict further tokens at once, as many released files have."""
    more = "num_nextn_predict_layers"
    return {more: 0} if getattr(config, more, None) else {}


def _listed_sparse(config: PretrainedConfig, layer: int) -> bool:
    return bool(config.mlp_layer_types[layer] == "sparse")


def _deepseek_like(model_type: str, **row: Any) -> Family:
    """Experts chosen by sigmoids with a correction, in groups, after some dense layers."""
    common: dict[str, Any] = {
        "expert_tensors": ROUTER
        | {CORRECTION: ("experts",)}
        | ROUTED
        | _shared("mlp.shared_experts"),
        "buffers": (CORRECTION,),
        "shared_output": "mlp.shared_experts.down_proj",
        "router_groups": "n_group",
        "is_sparse": _later_sparse,
        "cut_pattern": _later_pattern,
        "fields": LLAMA_FIELDS
        | {"experts": "n_routed_experts", "expert_ffn": "moe_intermediate_size"},
        "constraints": (EXPERTS_ALIGNED, WHOLE_SHARED_EXPERTS),
        **_several("n_shared_experts"),
    }
    return mixture(model_type, **(common | row))


LATENT_ATTENTION: dict[str, Axes] = {
    "self_attn.q_proj.weight": ("query_rows", "hidden"),
    "self_attn.q_a_proj.weight": ("query_rank", "hidden"),
    "self_attn.q_a_proj.bias": ("query_rank",),
    "self_attn.q_a_layernorm.weight": ("query_rank",),
    "self_attn.q_b_proj.weight": ("query_rows", "query_rank"),
    "self_attn.kv_a_proj_with_mqa.weight": ("latent", "hidden"),
    "self_attn.kv_a_proj_with_mqa.bias": ("latent",),
    "self_attn.kv_a_layernorm.weight": ("latent_rank",),
    "self_attn.kv_b_proj.weight": ("key_value_rows", "latent_rank"),
    "self_attn.o_proj.weight": ("hidden", "value_rows"),
    "self_attn.o_proj.bias": ("hidden",),
}
"""Of queries there is either one projection or two with a rank between. The ranks stay whole."""
LATENT_FLAGS = {
    "self_attn.q_proj.weight": ("not q_lora_rank",),
    **{
        f"self_attn.{name}": ("q_lora_rank",)
        for name in ("q_a_proj.weight", "q_a_layernorm.weight", "q_b_proj.weight")
    },
    "self_attn.q_a_proj.bias": ("q_lora_rank", "attention_bias"),
    "self_attn.kv_a_proj_with_mqa.bias": ("attention_bias",),
    "self_attn.o_proj.bias": ("attention_bias",),
}


def _latent_rows(config: PretrainedConfig) -> Mapping[str, AxisRows]:
    keys, values = config.qk_nope_head_dim, config.v_head_dim
    return {
        "query_rows": AxisRows("heads", keys + config.qk_rope_head_dim),
        "key_value_rows": AxisRows("heads", keys + values),
        "value_rows": AxisRows("heads", values),
        "query_rank": AxisRows(rows=config.q_lora_rank or 0),
        "latent_rank": AxisRows(rows=config.kv_lora_rank),
        "latent": AxisRows(rows=config.kv_lora_rank + config.qk_rope_head_dim),
    }


LATENT: dict[str, Any] = {
    "layer_tensors": {**PRE_NORMS, **LATENT_ATTENTION},
    "flags": LATENT_FLAGS,
    "axis_rows": _latent_rows,
    "attention_input": "self_attn.kv_a_proj_with_mqa",
    "latent_attention": True,
    "has_head_dim": False,
}


def _ernie_sparse(config: PretrainedConfig, layer: int) -> bool:
    inside = config.moe_layer_start_index <= layer <= config.moe_layer_end_index
    return bool(inside and (layer + 1) % config.moe_layer_interval == 0)


def _one_span(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """The places of the kept layers with experts, which are one span where every layer of the
    teacher's span has experts."""
    sparse = [place for place, layer in enumerate(kept) if _ernie_sparse(config, layer)]
    first, last = (sparse[0], sparse[-1]) if sparse else (len(kept), len(kept))
    return {"moe_layer_start_index": first, "moe_layer_end_index": last}


def _llama4_pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """The kept layers with experts by their new places."""
    return {"moe_layers": [place for place, n in enumerate(kept) if n in config.moe_layers]}


SHARED_EXPERTS = (
    mixture(  # the shared expert has a gate of its own
        "qwen2_moe",
        layer_tensors={**PRE_NORMS, **ATTENTION},
        optional_tensors=flagged("qkv_bias", QKV_BIASES),
        expert_tensors=ROUTER
        | ROUTED
        | _shared("mlp.shared_expert")
        | {"mlp.shared_expert_gate.weight": ("1", "hidden")},
        shared_output="mlp.shared_expert.down_proj",
        is_sparse=qwen_sparse,
        cut_pattern=qwen_pattern,
        fields=LLAMA_FIELDS
        | {
            "experts": "num_experts",
            "expert_ffn": "moe_intermediate_size",
            "shared_ffn": "shared_expert_intermediate_size",
        },
    ),
    _deepseek_like(
        "glm4_moe",
        optional_tensors=flagged("attention_bias", QKV_BIASES) | flagged("use_qk_norm", HEAD_NORMS),
    ),
    _deepseek_like(
        "dots1",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        windows=True,
    ),
    _deepseek_like("deepseek_v3", **LATENT),
    _deepseek_like(
        "solar_open",
        dense_tensors={},
        is_sparse=lambda config, layer: True,
        cut_pattern=_one_token,
        optional_tensors=BIASED_ATTENTION,
        fields=ROUTED_FIELDS
        | {"experts": "n_routed_experts", "expert_ffn": "moe_intermediate_size"},
    ),
    _deepseek_like(
        "glm4_moe_lite",
        **LATENT,
        is_sparse=_listed_sparse,
        per_layer_fields=("layer_types", "mlp_layer_types"),
        cut_pattern=_one_token,
    ),
    mixture(
        "ernie4_5_moe",
        expert_tensors=ROUTER
        | {"mlp.moe_statics.e_score_correction_bias": ("1", "experts")}
        | ROUTED
        | _shared("mlp.shared_experts"),
        shared_output="mlp.shared_experts.down_proj",
        is_sparse=_ernie_sparse,
        cut_pattern=_one_span,
        fields=LLAMA_FIELDS | {"experts": "moe_num_experts", "expert_ffn": "moe_intermediate_size"},
        constraints=(
            EXPERTS_ALIGNED,
            WHOLE_SHARED_EXPERTS,
            Constraint("no biases (use_bias false)", lambda config, a: not config.use_bias),
            Constraint(
                "experts in every layer of a span (moe_layer_interval 1)",
                lambda config, a: (a.layers > 0) & (config.moe_layer_interval == 1),
            ),
        ),
        **_several("moe_num_shared_experts"),
    ),
    routed(
        "hunyuan_v1_moe",
        layer_tensors={
            **PRE_NORMS,
            **ATTENTION,
            "self_attn.query_layernorm.weight": ("head_dim",),
            "self_attn.key_layernorm.weight": ("head_dim",),
        },
        optional_tensors=BIASED_ATTENTION,
        expert_tensors={"mlp.gate.wg.weight": ("experts", "hidden")}
        | ROUTED
        | _shared("mlp.shared_mlp"),
        shared_output="mlp.shared_mlp.down_proj",
        fields=ROUTED_FIELDS
        | {
            "experts": "num_experts",
            "expert_ffn": "intermediate_size",
            "shared_ffn": "intermediate_size",
        },
        per_layer_fields=("layer_types", "moe_topk"),
        constraints=(EXPERTS_ALIGNED, ONE_SHARED_EXPERT),
    ),
    routed(
        "granitemoeshared",
        optional_tensors=BIASED_ATTENTION,
        **GRANITE
        | {
            "expert_tensors": GRANITE_EXPERTS
            | {
                "shared_mlp.input_linear.weight": ("shared_ffn+shared_ffn", "hidden"),
                "shared_mlp.output_linear.weight": ("hidden", "shared_ffn"),
            }
        },
        shared_output="shared_mlp.output_linear",
        fields=ROUTED_FIELDS
        | {
            "experts": "num_local_experts",
            "expert_ffn": "intermediate_size",
            "shared_ffn": "shared_intermediate_size",
        },
    ),
    mixture(  # a token enters its experts times their weights; weights lie [inputs, outputs]
        "llama4_text",
        optional_tensors=BIASED_ATTENTION,
        dense_tensors={
            "feed_forward.gate_proj.weight": ("ffn", "hidden"),
            "feed_forward.up_proj.weight": ("ffn", "hidden"),
            "feed_forward.down_proj.weight": ("hidden", "ffn"),
        },
        expert_tensors={
            "feed_forward.router.weight": ("experts", "hidden"),
            "feed_forward.experts.gate_up_proj": ("experts", "hidden", "expert_ffn+expert_ffn"),
            "feed_forward.experts.down_proj": ("experts", "expert_ffn", "hidden"),
            **_shared("feed_forward.shared_expert"),
        },
        fused_experts={},
        ffn_input="feed_forward",
        ffn_output="feed_forward.down_proj",
        shared_output="feed_forward.shared_expert.down_proj",
        experts_module="feed_forward.experts",
        expert_output="feed_forward.experts.down_proj",
        run_expert=transposed_expert,
        is_sparse=lambda config, layer: layer in config.moe_layers,
        cut_pattern=_llama4_pattern,
        per_layer_fields=("layer_types", "no_rope_layers"),
        fields=LLAMA_FIELDS
        | {
            "ffn": "intermediate_size_mlp",
            "experts": "num_local_experts",
            "expert_ffn": "intermediate_size",
            "shared_ffn": "intermediate_size",
        },
        constraints=(ONE_SHARED_EXPERT,),
    ),
)
