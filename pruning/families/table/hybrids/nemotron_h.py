"""Row of Nemotron-H: each of its layers is one of Mamba-2, attention, an FFN or experts."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM
from pruning.families.spec import Constraint, Family, plain_expert
from pruning.families.table.hybrids.mamba import MAMBA, mamba_recurrence, within
from pruning.families.words import AxisRows, OlderNames

NEMOTRON_H_PARTS = {
    "linear_attention": (SSM,),
    "full_attention": (ATTENTION,),
    "mlp": (FFN,),
    "moe": (EXPERTS,),
}


def _nemotron_h_parts(family: Family, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    return NEMOTRON_H_PARTS[config.layers_block_type[layer]]


def _nemotron_h_rows(config: PretrainedConfig) -> dict[str, AxisRows]:
    latent = "expert_latent" if config.moe_latent_size else "hidden"
    return {"expert_channels": AxisRows(latent), "conv_kernel": AxisRows(rows=config.conv_kernel)}


def _experts_aligned(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    channels = a.expert_latent if config.moe_latent_size else a.hidden
    return np.equal(a.experts, 0) | ((channels % 8 == 0) & (a.expert_ffn % 8 == 0))


NEMOTRON_H = (
    Family(
        "nemotron_h",
        model_tensors={
            "backbone.embeddings.weight": ("vocab", "hidden"),
            "backbone.norm_f.weight": ("hidden",),
        },
        output_head=("lm_head.weight", ("vocab", "hidden")),
        layer_prefix="backbone.layers",
        module_prefix="model.layers",
        layer_tensors={"norm.weight": ("hidden",)},
        attention_tensors={
            "mixer.q_proj.weight": ("heads", "hidden"),
            "mixer.k_proj.weight": ("kv_heads", "hidden"),
            "mixer.v_proj.weight": ("kv_heads", "hidden"),
            "mixer.o_proj.weight": ("hidden", "heads"),
        },
        ssm_tensors=within("mixer", MAMBA),
        dense_tensors={
            "mixer.up_proj.weight": ("ffn", "hidden"),
            "mixer.up_proj.bias": ("ffn",),
            "mixer.down_proj.weight": ("hidden", "ffn"),
            "mixer.down_proj.bias": ("hidden",),
        },
        expert_tensors={
            "mixer.gate.weight": ("experts", "hidden"),
            "mixer.gate.e_score_correction_bias": ("experts",),
            "mixer.experts.{expert}.up_proj.weight": ("expert_ffn", "expert_channels"),
            "mixer.experts.{expert}.down_proj.weight": ("expert_channels", "expert_ffn"),
            "mixer.shared_experts.up_proj.weight": ("shared_ffn", "hidden"),
            "mixer.shared_experts.up_proj.bias": ("shared_ffn",),
            "mixer.shared_experts.down_proj.weight": ("hidden", "shared_ffn"),
            "mixer.shared_experts.down_proj.bias": ("hidden",),
            "mixer.fc1_latent_proj.weight": ("expert_latent", "hidden"),
            "mixer.fc1_latent_proj.bias": ("expert_latent",),
            "mixer.fc2_latent_proj.weight": ("hidden", "expert_latent"),
            "mixer.fc2_latent_proj.bias": ("hidden",),
        },
        fused_experts={
            "mixer.experts.up_proj": ("experts", "expert_ffn", "expert_channels"),
            "mixer.experts.down_proj": ("experts", "expert_channels", "expert_ffn"),
        },
        flags={
            "mixer.in_proj.bias": ("use_bias",),
            "mixer.out_proj.bias": ("use_bias",),
            "mixer.conv1d.bias": ("use_conv_bias",),
            "mixer.up_proj.bias": ("mlp_bias",),
            "mixer.down_proj.bias": ("mlp_bias",),
            "mixer.shared_experts.up_proj.bias": ("mlp_bias",),
            "mixer.shared_experts.down_proj.bias": ("mlp_bias",),
            "mixer.fc1_latent_proj.weight": ("moe_latent_size",),
            "mixer.fc1_latent_proj.bias": ("moe_latent_size", "mlp_bias"),
            "mixer.fc2_latent_proj.weight": ("moe_latent_size",),
            "mixer.fc2_latent_proj.bias": ("moe_latent_size", "mlp_bias"),
        },
        buffers=("mixer.gate.e_score_correction_bias",),
        parts_of=_nemotron_h_parts,
        axis_rows=_nemotron_h_rows,
        fields={
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
            "ffn": "intermediate_size",
            "experts": "n_routed_experts",
            "expert_ffn": "moe_intermediate_size",
            "shared_ffn": "moe_shared_expert_intermediate_size",
            "expert_latent": "moe_latent_size",
            "ssm_heads": "mamba_num_heads",
            "ssm_head_dim": "mamba_head_dim",
            "ssm_groups": "n_groups",
            "ssm_state": "ssm_state_size",
        },
        attention_input="mixer.q_proj",
        attention_output="mixer.o_proj",
        ffn_input="mixer",
        ffn_output="mixer.down_proj",
        shared_output="mixer.shared_experts.down_proj",
        experts_module="mixer.experts",
        router_groups="n_group",
        expert_output="mixer.experts.{expert}.down_proj.weight",
        run_expert=plain_expert,
        recurrence=mamba_recurrence("mixer", conv_kernel="conv_kernel"),
        spanning_norms={"mixer.norm.weight": "ssm_groups"},
        per_layer_fields=("layers_block_type",),
        cut_pattern=lambda config, kept: {"num_nextn_predict_layers": 0},
        older_names=OlderNames(follow=("hybrid_override_pattern", "num_hidden_layers")),
        constraints=(
            Constraint(
                "experts whose FFN, and whose input, 8 divides (grouped matrix products read 16 "
                "bytes)",
                _experts_aligned,
            ),
        ),
    ),
)
