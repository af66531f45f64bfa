"""Tiny configurations of dense types that are variations of others."""

import transformers

from tests.pruning.values import (
    BIASES,
    COMMON,
    GQA,
    MHA,
    PARTIAL,
    ROPE,
    TIED,
    UNTIED,
    WINDOWS,
    Values,
)

_PLAIN: Values = {**COMMON, **ROPE, **GQA, **UNTIED}
_DIVIDED: Values = {**_PLAIN, "hidden_size": 54}
_NO_HEAD_DIM: Values = {**COMMON, **PARTIAL, "num_attention_heads": 6, **UNTIED}
_BY_KIND: Values = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 700.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
    }
}
_LLAMA_4_SCALING: Values = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 700.0,
        "factor": 4.0,
        "original_max_position_embeddings": 8,
        "llama_4_scaling_beta": 0.5,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }
}
_LLAMA_3: Values = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 700.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
}

_DENSE: dict[str, tuple[str, Values]] = {
    "internlm3": ("InternLM3Config", {**_DIVIDED, **BIASES}),
    "iquestcoder": ("IQuestCoderConfig", {**_DIVIDED, **TIED}),
    "ministral": ("MinistralConfig", {**_PLAIN, **WINDOWS}),
    "ministral3": ("Ministral3Config", {**_PLAIN, **_LLAMA_4_SCALING}),
    "cwm": ("CwmConfig", {**_DIVIDED, **WINDOWS, "mlp_bias": True, "eos_token_id": 2}),
    "hunyuan": ("HunYuanDenseV1Config", {**_PLAIN, **TIED, "attention_bias": True}),
    "glm": ("GlmConfig", {**_PLAIN, **PARTIAL, "attention_bias": True}),
    "seed-oss": ("SeedOssConfig", {**_PLAIN, "attention_out_bias": True, "mlp_bias": True}),
    "helium": ("HeliumConfig", {**COMMON, **ROPE, **MHA, **BIASES, **TIED}),
    "arcee": ("ArceeConfig", {**_DIVIDED, **BIASES}),
    "apertus": ("ApertusConfig", {**_PLAIN, **_LLAMA_3, "attention_bias": True}),
    "ernie4-5": ("Ernie4_5Config", {**_PLAIN, "use_bias": True, **TIED}),
    "olmo": ("OlmoConfig", {**_PLAIN, "clip_qkv": 2.0, "attention_bias": True}),
    "nanochat": ("NanoChatConfig", {**_PLAIN, "attention_bias": True}),
    "gemma": ("GemmaConfig", {**_PLAIN, **TIED, "attention_bias": True}),
    "vaultgemma": ("VaultGemmaConfig", {**_DIVIDED, **WINDOWS, **TIED, "attention_bias": True}),
    "olmo3": ("Olmo3Config", {**_PLAIN, **WINDOWS, **_BY_KIND, "attention_bias": True}),
    "exaone4": ("Exaone4Config", {**_PLAIN, **WINDOWS, "sliding_window_pattern": None}),
    "glm4": ("Glm4Config", {**_PLAIN, **PARTIAL, "attention_bias": True}),
    "granite-swa": (
        "GraniteSWAConfig",
        {
            **_PLAIN,
            **BIASES,
            **WINDOWS,
            "layer_rope_theta": [70.0, 700.0, 700.0],
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
        },
    ),
    "hyperclovax": (
        "HyperCLOVAXConfig",
        {
            **_DIVIDED,
            **BIASES,
            "use_post_norm": True,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.2,
            "logits_scaling": 0.5,
        },
    ),
    "jais2": ("Jais2Config", {**_DIVIDED, **BIASES}),
    "starcoder2": ("Starcoder2Config", {**_PLAIN, "use_bias": True, "sliding_window": 6}),
    "stablelm": (
        "StableLmConfig",
        {**_NO_HEAD_DIM, "num_key_value_heads": 6, "use_qkv_bias": True},
    ),
    "cohere": ("CohereConfig", {**_PLAIN, **TIED, "use_qk_norm": True, "attention_bias": True}),
    # without rotary embedding the biases of keys change nothing, so that none would be noticed
    "cohere2": ("Cohere2Config", {**_PLAIN, **TIED, **WINDOWS}),
    "phi": ("PhiConfig", {**_PLAIN, **PARTIAL}),
    "phi-norms": (
        "PhiConfig",
        {**_PLAIN, **PARTIAL, **MHA, "qk_layernorm": True},
    ),
    "persimmon": ("PersimmonConfig", {**_NO_HEAD_DIM, "qk_layernorm": True}),
}
DENSE_CONFIGS: dict[str, tuple[type, Values]] = {
    name: (getattr(transformers, kind), values)
    for name, (kind, values) in _DENSE.items()
    if hasattr(transformers, kind)  # the oldest version that is supported does not know all
}
SECOND_VARIANTS = ("phi-norms",)
"""Variants beside one that has most of what the layers of its type may have."""
