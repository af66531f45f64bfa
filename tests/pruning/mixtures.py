"""Tiny configurations of mixtures of experts."""

from typing import Any

from transformers import (
    DeepseekV3Config,
    Dots1Config,
    Ernie4_5_MoeConfig,
    FlexOlmoConfig,
    Glm4MoeConfig,
    Glm4MoeLiteConfig,
    GptOssConfig,
    GraniteMoeConfig,
    GraniteMoeSharedConfig,
    HunYuanMoEV1Config,
    Llama4TextConfig,
    MiniMaxM2Config,
    OlmoeConfig,
    Qwen2MoeConfig,
    SolarOpenConfig,
)

_COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
}
_GQA = {**_COMMON, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}
_MHA = {**_COMMON, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8}
_LATENT = {
    **_COMMON,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "moe_intermediate_size": 24,
}
_SHARED = {"n_routed_experts": 5, "n_shared_experts": 2, "moe_intermediate_size": 24}
_MANY = {"num_experts_per_tok": 3}
"""So many of five that the few tokens of the tests reach every expert."""
_GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}

MIXTURES: dict[str, tuple[type, dict[str, Any]]] = {
    "olmoe": (OlmoeConfig, {**_MHA, "num_experts": 5, "attention_bias": True, "clip_qkv": 9.0}),
    "flex-olmo": (FlexOlmoConfig, {**_GQA, "num_experts": 5, "norm_topk_prob": True}),
    "minimax-m2": (MiniMaxM2Config, {**_GQA, "num_local_experts": 5, **_MANY}),
    "granitemoe": (GraniteMoeConfig, {**_GQA, **_GRANITE, "num_local_experts": 5}),
    "granitemoeshared": (
        GraniteMoeSharedConfig,
        {**_GQA, **_GRANITE, "num_local_experts": 5, "shared_intermediate_size": 20},
    ),
    "gpt-oss": (
        GptOssConfig,
        {**_GQA, "num_local_experts": 5, "sliding_window": 6, "swiglu_limit": 2.0},
    ),
    "qwen2-moe-mixed": (
        Qwen2MoeConfig,
        {
            **_GQA,
            "num_experts": 5,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 20,
            "mlp_only_layers": [1],
        },
    ),
    "glm4-moe": (
        Glm4MoeConfig,
        {**_GQA, **_SHARED, **_MANY, "first_k_dense_replace": 1, "use_qk_norm": True},
    ),
    "dots1": (
        Dots1Config,
        {
            **_GQA,
            **_SHARED,
            **_MANY,
            "first_k_dense_replace": 1,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "solar-open": (SolarOpenConfig, {**_GQA, **_SHARED}),
    "deepseek-v3": (
        DeepseekV3Config,
        {**_LATENT, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
    ),
    "deepseek-v3-one-query": (
        DeepseekV3Config,
        {
            **_LATENT,
            "first_k_dense_replace": 0,
            "n_group": 2,
            "topk_group": 2,
            "q_lora_rank": None,
            "attention_bias": True,
        },
    ),
    "glm4-moe-lite": (
        Glm4MoeLiteConfig,
        {**_LATENT, "mlp_layer_types": ["dense", "sparse", "sparse"]},
    ),
    "ernie4-5-moe": (
        Ernie4_5_MoeConfig,
        {
            **{name: value for name, value in _GQA.items() if name != "num_experts_per_tok"},
            "moe_num_experts": 5,
            "moe_k": 2,
            "moe_num_shared_experts": 2,
            "moe_intermediate_size": 24,
            "moe_layer_start_index": 1,
            "tie_word_embeddings": True,
        },
    ),
    "hunyuan-v1-moe": (
        HunYuanMoEV1Config,
        {
            **{name: value for name, value in _GQA.items() if name != "num_experts_per_tok"},
            "num_experts": 5,
            "moe_topk": [2, 2, 2],
        },
    ),
    "llama4": (
        Llama4TextConfig,
        {
            **_GQA,
            "intermediate_size": 24,
            "intermediate_size_mlp": 40,
            "num_local_experts": 5,
            "moe_layers": [0, 2],
            "no_rope_layers": [1, 0, 1],
            "attention_chunk_size": 6,
        },
    ),
}
MIXED_MIXTURES = (
    "qwen2-moe-mixed",
    "glm4-moe",
    "dots1",
    "deepseek-v3",
    "glm4-moe-lite",
    "ernie4-5-moe",
    "llama4",
)
"""Those with dense layers."""
