"""Rows of mixtures of experts."""

from typing import Any

from transformers import PretrainedConfig

from pruning.families.spec import Axes, OlderNames
from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    EXPERTS_ALIGNED,
    HEAD_NORMS,
    LLAMA_FIELDS,
    PRE_NORMS,
    llama_like,
)

FUSED_EXPERTS: dict[str, Axes] = {
    "mlp.gate.weight": ("experts", "hidden"),
    "mlp.experts.gate_up_proj": ("experts", "expert_ffn+expert_ffn", "hidden"),
    "mlp.experts.down_proj": ("experts", "hidden", "expert_ffn"),
}


def _has_experts(config: PretrainedConfig, layer: int) -> bool:
    return True


def _qwen3_moe_sparse(config: PretrainedConfig, layer: int) -> bool:
    on_step = (layer + 1) % config.decoder_sparse_step == 0
    return layer not in config.mlp_only_layers and config.num_local_experts > 0 and on_step


def _qwen3_moe_pattern(config: PretrainedConfig, kept: list[int]) -> dict[str, Any]:
    """The kept dense layers by their new places: the step alone can no longer name them."""
    dense = [place for place, layer in enumerate(kept) if not _qwen3_moe_sparse(config, layer)]
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense}


MIXTURES = (
    llama_like(
        "mixtral",
        dense_tensors={},
        expert_tensors={
            "block_sparse_moe.gate.weight": ("experts", "hidden"),
            "block_sparse_moe.experts.{expert}.w1.weight": ("expert_ffn", "hidden"),
            "block_sparse_moe.experts.{expert}.w3.weight": ("expert_ffn", "hidden"),
            "block_sparse_moe.experts.{expert}.w2.weight": ("hidden", "expert_ffn"),
        },
        fused_experts=FUSED_EXPERTS,
        experts_module="mlp.experts",
        expert_output="block_sparse_moe.experts.{expert}.w2.weight",
        is_sparse=_has_experts,
        fields={
            **{axis: name for axis, name in LLAMA_FIELDS.items() if axis != "ffn"},
            "experts": "num_local_experts",
            "expert_ffn": "intermediate_size",
        },
        constraints=(EXPERTS_ALIGNED,),
    ),
    llama_like(
        "qwen3_moe",
        layer_tensors={**PRE_NORMS, **ATTENTION, **HEAD_NORMS},
        optional_tensors=BIASED_ATTENTION,
        expert_tensors={
            "mlp.gate.weight": ("experts", "hidden"),
            "mlp.experts.{expert}.gate_proj.weight": ("expert_ffn", "hidden"),
            "mlp.experts.{expert}.up_proj.weight": ("expert_ffn", "hidden"),
            "mlp.experts.{expert}.down_proj.weight": ("hidden", "expert_ffn"),
        },
        fused_experts=FUSED_EXPERTS,
        experts_module="mlp.experts",
        expert_output="mlp.experts.{expert}.down_proj.weight",
        is_sparse=_qwen3_moe_sparse,
        cut_pattern=_qwen3_moe_pattern,
        fields=LLAMA_FIELDS
        | {"experts": "num_local_experts", "expert_ffn": "moe_intermediate_size"},
        constraints=(EXPERTS_ALIGNED,),
        older_names=OlderNames(copies={"num_experts": "num_local_experts"}),
    ),
)
