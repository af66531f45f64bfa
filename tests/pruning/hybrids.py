"""Tiny configurations of hybrids: types of which some layers have a recurrent state."""

from typing import Any

from transformers import (
    BambaConfig,
    FalconH1Config,
    GraniteMoeHybridConfig,
    Lfm2Config,
    Lfm2MoeConfig,
    NemotronHConfig,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
)

_NEMOTRON_H: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 40,
    "ssm_state_size": 7,
    "mamba_num_heads": 6,
    "mamba_head_dim": 10,
    "n_groups": 2,
    "chunk_size": 8,
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_MAMBA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 40,
    "mamba_n_heads": 6,
    "mamba_d_head": 10,
    "mamba_n_groups": 2,
    "mamba_d_state": 7,
    "mamba_chunk_size": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_FALCON_H1: dict[str, Any] = {
    **_MAMBA,
    "num_hidden_layers": 3,
    "mamba_d_ssm": 60,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
    "ssm_multipliers": [0.875, 1.125, 0.75, 1.25, 0.625],  # kept in fp32 by the model
    "mlp_multipliers": [0.9, 1.2],
    "key_multiplier": 0.8,
    "attention_out_multiplier": 1.1,
    "ssm_out_multiplier": 1.2,
    "ssm_in_multiplier": 0.9,
    "lm_head_multiplier": 0.7,
    "embedding_multiplier": 3.0,
}
_DELTA_NET: dict[str, Any] = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 40,
    "linear_num_value_heads": 6,
    "linear_value_head_dim": 10,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 7,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 700.0,
        "partial_rotary_factor": 0.5,
    },
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SHARED_EXPERT: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
}
_EXPANDED: dict[str, Any] = {
    **_MAMBA,
    "num_hidden_layers": 3,
    "mamba_n_heads": 12,
    "mamba_d_head": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
}
_GRANITE: dict[str, Any] = {
    **_EXPANDED,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "shared_intermediate_size": 20,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
_LFM2: dict[str, Any] = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 40,
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

HYBRIDS: dict[str, tuple[type, dict[str, Any]]] = {
    "nemotron-h": (
        NemotronHConfig,
        {**_NEMOTRON_H, "hybrid_override_pattern": "M-*M", "layer_norm_epsilon": 1e-3},
    ),
    "nemotron-h-moe": (
        NemotronHConfig,
        {
            **_NEMOTRON_H,
            "hybrid_override_pattern": "MEM*E-",
            "moe_latent_size": 16,
            "mlp_bias": True,
            "use_bias": True,
            "routed_scaling_factor": 2.5,
        },
    ),
    "falcon-h1": (FalconH1Config, _FALCON_H1),
    "falcon-h1-norm": (
        FalconH1Config,
        {
            **_FALCON_H1,
            "num_hidden_layers": 2,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "mamba_conv_bias": False,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-5": (Qwen3_5TextConfig, {**_DELTA_NET, "attention_bias": True}),
    "qwen3-5-moe": (
        Qwen3_5MoeTextConfig,
        {
            **_DELTA_NET,
            **_SHARED_EXPERT,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-next": (Qwen3NextConfig, {**_DELTA_NET, **_SHARED_EXPERT, "mlp_only_layers": [2]}),
    "bamba": (BambaConfig, {**_EXPANDED, "attn_layer_indices": [1], "mlp_bias": True}),
    "granite-hybrid": (
        GraniteMoeHybridConfig,
        {
            **_GRANITE,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "position_embedding_type": "rope",
            "mamba_proj_bias": True,
            "attention_bias": True,
        },
    ),
    "granite-hybrid-moe": (
        GraniteMoeHybridConfig,
        {
            **_GRANITE,
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "intermediate_size": 24,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "tie_word_embeddings": True,
        },
    ),
    "lfm2": (
        Lfm2Config,
        {**_LFM2, "intermediate_size": 60, "block_multiple_of": 8, "conv_bias": True},
    ),
    "lfm2-moe": (
        Lfm2MoeConfig,
        {
            **_LFM2,
            "num_dense_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "routed_scaling_factor": 1.5,
            "tie_word_embeddings": False,
        },
    ),
}
