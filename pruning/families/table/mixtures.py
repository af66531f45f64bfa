"""Rows of mixtures of experts, all of which are routed to."""

from typing import Any

from transformers import PretrainedConfig

from pruning.families.spec import Family, clamped_expert
from pruning.families.table.common import (
    ATTENTION,
    ATTENTION_BIASES,
    BIASED_ATTENTION,
    EXPERTS_ALIGNED,
    HEAD_NORMS,
    HIDDEN_FOLLOWS_HEADS,
    LLAMA_FIELDS,
    PRE_NORMS,
    flagged,
    llama_like,
)
from pruning.families.words import Axes, AxisRows, OlderNames

ROUTED_FIELDS = {axis: name for axis, name in LLAMA_FIELDS.items() if axis != "ffn"}
ROUTER: dict[str, Axes] = {"mlp.gate.weight": ("experts", "hidden")}
ROUTED: dict[str, Axes] = {
    "mlp.experts.{expert}.gate_proj.weight": ("expert_ffn", "hidden"),
    "mlp.experts.{expert}.up_proj.weight": ("expert_ffn", "hidden"),
    "mlp.experts.{expert}.down_proj.weight": ("hidden", "expert_ffn"),
}
NUMBERED: dict[str, Axes] = {
    "block_sparse_moe.gate.weight": ("experts", "hidden"),
    "block_sparse_moe.experts.{expert}.w1.weight": ("expert_ffn", "hidden"),
    "block_sparse_moe.experts.{expert}.w3.weight": ("expert_ffn", "hidden"),
    "block_sparse_moe.experts.{expert}.w2.weight": ("hidden", "expert_ffn"),
}
"""Mixtral's names."""
FUSED_EXPERTS: dict[str, Axes] = {
    "mlp.gate.weight": ("experts", "hidden"),
    "mlp.experts.gate_up_proj": ("experts", "expert_ffn+expert_ffn", "hidden"),
    "mlp.experts.down_proj": ("experts", "hidden", "expert_ffn"),
}
PROJECTION_NORMS: dict[str, Axes] = {
    "self_attn.q_norm.weight": ("heads",),
    "self_attn.k_norm.weight": ("kv_heads",),
}
"""Of queries and keys over all heads together."""
SPANNING_PROJECTIONS = dict.fromkeys(PROJECTION_NORMS, "")


def mixture(model_type: str, **row: Any) -> Family:
    """A row that differs in what is given from a Llama whose FFNs are experts."""
    common: dict[str, Any] = {
        "expert_tensors": ROUTER | ROUTED,
        "fused_experts": FUSED_EXPERTS,
        "experts_module": "mlp.experts",
        "expert_output": "mlp.experts.{expert}.down_proj.weight",
        "constraints": (EXPERTS_ALIGNED,),
    }
    return llama_like(model_type, **(common | row))


def routed(model_type: str, **row: Any) -> Family:
    """The same without a dense layer: the FFN that the configuration names is that of an expert."""
    common: dict[str, Any] = {
        "dense_tensors": {},
        "is_sparse": lambda config, layer: True,
        "fields": ROUTED_FIELDS
        | {"experts": "num_local_experts", "expert_ffn": "intermediate_size"},
    }
    return mixture(model_type, **(common | row))


def qwen_sparse(config: PretrainedConfig, layer: int) -> bool:
    """Whether a layer of Qwen's mixtures has experts."""
    on_step = (layer + 1) % config.decoder_sparse_step == 0
    return layer not in config.mlp_only_layers and config.num_experts > 0 and on_step


def qwen_pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """The kept dense layers by their new places: the step alone can no longer name them."""
    dense = [place for place, layer in enumerate(kept) if not qwen_sparse(config, layer)]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


GRANITE_EXPERTS: dict[str, Axes] = {
    "block_sparse_moe.router.layer.weight": ("experts", "hidden"),
    "block_sparse_moe.input_linear.weight": ("experts", "expert_ffn+expert_ffn", "hidden"),
    "block_sparse_moe.output_linear.weight": ("experts", "hidden", "expert_ffn"),
}
GRANITE: dict[str, Any] = {
    "expert_tensors": GRANITE_EXPERTS,
    "fused_experts": {
        "block_sparse_moe.router.weight": ("experts", "hidden"),
        "block_sparse_moe.experts.gate_up_proj": ("experts", "expert_ffn+expert_ffn", "hidden"),
        "block_sparse_moe.experts.down_proj": ("experts", "hidden", "expert_ffn"),
    },
    "ffn_input": "block_sparse_moe",
    "ffn_output": "block_sparse_moe.output_linear",
    "experts_module": "block_sparse_moe.experts",
    "expert_output": "block_sparse_moe.output_linear.weight",
}

MIXTURES = (
    routed(
        "mixtral",
        expert_tensors=NUMBERED,
        expert_output="block_sparse_moe.experts.{expert}.w2.weight",
    ),
    mixture(
        "qwen3_moe",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        is_sparse=qwen_sparse,
        cut_pattern=qwen_pattern,
        fields=LLAMA_FIELDS
        | {"experts": "num_local_experts", "expert_ffn": "moe_intermediate_size"},
        older_names=OlderNames(copies={"num_experts": "num_local_experts"}),
    ),
    routed(  # q and k are normed over the whole projection, as wide as the hidden size
        "olmoe",
        layer_tensors={**PRE_NORMS, **ATTENTION, **PROJECTION_NORMS},
        optional_tensors=flagged("attention_bias", ATTENTION_BIASES),
        spanning_norms=SPANNING_PROJECTIONS,
        fields=ROUTED_FIELDS | {"experts": "num_experts", "expert_ffn": "intermediate_size"},
        has_head_dim=False,
        constraints=(EXPERTS_ALIGNED, HIDDEN_FOLLOWS_HEADS),
    ),
    routed(  # OLMo 2's norms, and experts
        "flex_olmo",
        layer_tensors={
            "post_attention_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            **PROJECTION_NORMS,
        },
        optional_tensors=BIASED_ATTENTION,
        attention_norms=("post_attention_layernorm",),
        spanning_norms=SPANNING_PROJECTIONS,
        fields=ROUTED_FIELDS | {"experts": "num_experts", "expert_ffn": "intermediate_size"},
    ),
    routed(
        "minimax_m2",
        layer_tensors={**PRE_NORMS, **ATTENTION, **PROJECTION_NORMS},
        spanning_norms=SPANNING_PROJECTIONS,
        expert_tensors=NUMBERED | {"block_sparse_moe.e_score_correction_bias": ("experts",)},
        buffers=("block_sparse_moe.e_score_correction_bias",),
        expert_output="block_sparse_moe.experts.{expert}.w2.weight",
    ),
    routed(  # Granite's multipliers; all experts in one tensor
        "granitemoe",
        optional_tensors=BIASED_ATTENTION,
        **GRANITE,
    ),
    routed(  # biases, a sink per head, rows of gate and up by turns, weights [inputs, outputs]
        "gpt_oss",
        layer_tensors={**PRE_NORMS, **ATTENTION, "self_attn.sinks": ("query_heads",)},
        optional_tensors=BIASED_ATTENTION,
        expert_tensors={
            "mlp.router.weight": ("experts", "hidden"),
            "mlp.router.bias": ("experts",),
            "mlp.experts.gate_up_proj": ("experts", "hidden", "gated_neurons"),
            "mlp.experts.gate_up_proj_bias": ("experts", "gated_neurons"),
            "mlp.experts.down_proj": ("experts", "expert_ffn", "hidden"),
            "mlp.experts.down_proj_bias": ("experts", "hidden"),
        },
        fused_experts={},
        expert_output="mlp.experts.down_proj",
        run_expert=clamped_expert,
        ffn_gives_scores=True,
        axis_rows=lambda config: {
            "query_heads": AxisRows("heads"),
            "gated_neurons": AxisRows("expert_ffn", 2),
        },
        windows=True,
    ),
)
