"""Tiny configurations of Gemma 4, whose layers differ in their heads."""

from typing import Any

from transformers import Gemma4TextConfig

_WINDOWED, _FULL = "sliding_attention", "full_attention"
_COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 6,
    "max_position_embeddings": 64,
    "vocab_size_per_layer_input": 96,
    "rope_parameters": {
        _WINDOWED: {"rope_type": "default", "rope_theta": 70.0},
        _FULL: {"rope_type": "proportional", "rope_theta": 700.0, "partial_rotary_factor": 0.5},
    },
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

GEMMA4: dict[str, tuple[type, dict[str, Any]]] = {
    "gemma4-shared": (
        Gemma4TextConfig,
        {
            **_COMMON,
            "num_hidden_layers": 6,
            "layer_types": [_WINDOWED, _WINDOWED, _FULL, _WINDOWED, _WINDOWED, _FULL],
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 6,
            "attention_bias": True,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma4-moe": (
        Gemma4TextConfig,
        {
            **_COMMON,
            "num_hidden_layers": 4,
            "layer_types": [_WINDOWED, _FULL, _WINDOWED, _FULL],
            "num_global_key_value_heads": 2,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 5,
            "top_k_experts": 2,
            "moe_intermediate_size": 24,
            "tie_word_embeddings": False,
        },
    ),
}
