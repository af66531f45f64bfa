"""Tiny configurations of hybrids: types of which some layers have a recurrent state."""

from typing import Any

from transformers import NemotronHConfig

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
}
