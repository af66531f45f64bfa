"""Configuration values that tiny teachers of many types share."""

from typing import Any

Values = dict[str, Any]

COMMON: Values = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROPE: Values = {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
PARTIAL: Values = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 700.0,
        "partial_rotary_factor": 0.5,
    }
}
GQA: Values = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}
MHA: Values = {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8}
BIASES: Values = {"attention_bias": True, "mlp_bias": True}
TIED: Values = {"tie_word_embeddings": True}
UNTIED: Values = {"tie_word_embeddings": False}
WINDOWS: Values = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
