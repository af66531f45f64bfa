"""Rules of engines: their demands on the sizes and layers of the models that they take.

A rule that is RUN is held against the engine by experiments/benchmarks/engines, one that is READ
was found in the engine's source. All take for granted that the configuration has the keys that
engines of the time of transformers 4 read (`rope_theta`, ...).
"""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning.engines.programs import CTRANSLATE2, LLAMA_CPP, MLX, SGLANG, TRANSFORMERS_4, VLLM
from pruning.engines.spec import (
    LOADING,
    QUANTISING,
    READ,
    WINDOWS,
    Pattern,
    Rows,
    Rule,
    Tie,
)
from pruning.families.architecture import Sizes
from pruning.families.block import EXPERTS
from pruning.families.table import FAMILIES, head_dim_of

HIDDEN_OF_HEADS = Tie("hidden", "heads", head_dim_of)
FFN_OF_HIDDEN = Tie("ffn", "hidden", lambda config: 4)
HEADS_NEEDED = "hidden = heads x head_dim"
HEADS_REASON = "it reads no head_dim and takes hidden / heads for it"
FFN_NEEDED = "FFN = 4 x hidden"
FFN_REASON = "it takes four times the hidden size whatever the configuration says"


def _windowed(config: PretrainedConfig) -> list[bool]:
    """Whether each layer attends within a window."""
    return [kind == "sliding_attention" for kind in config.layer_types]


def _rotated(config: PretrainedConfig) -> list[bool]:
    """Whether each layer has a rotary embedding."""
    return [bool(flag) for flag in config.no_rope_layers]


def _unwindowed(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    """Whether no layer attends within a window that is shorter than the model's positions."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    windowed = window is not None and (kinds is None or any(_windowed(config)))
    return np.asarray(a.layers >= 1) & (not windowed or window >= config.max_position_embeddings)


def _gemma_scale(largest: int) -> Any:
    """llama.cpp knows the 27B by its depth: then the scale is that of hidden / heads."""

    def holds(config: PretrainedConfig, a: Sizes[Any]) -> Any:
        channels = np.where(
            np.asarray(a.layers) == largest, np.asarray(a.hidden) // a.heads, head_dim_of(config)
        )
        return channels == config.query_pre_attn_scalar

    return holds


def _own_scale(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return np.asarray(a.layers >= 1) & (config.query_pre_attn_scalar == head_dim_of(config))


def _uncapped(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    caps = (config.attn_logit_softcapping, config.final_logit_softcapping)
    return np.asarray(a.layers >= 1) & (not any(caps))


def _capped(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    caps = (config.attn_logit_softcapping, config.final_logit_softcapping)
    return np.asarray(a.layers >= 1) & all(caps)


def _default_base(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    base = (config.rope_parameters or {}).get("rope_theta", 1e4)
    return np.asarray(a.layers >= 1) & (base == 1e4)


def _unscaled_rope(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    rope = config.rope_parameters or {}
    nested = [kind for kind in rope.values() if isinstance(kind, dict)]
    kinds = {kind.get("rope_type", "default") for kind in nested or [rope]}
    return np.asarray(a.layers >= 1) & (kinds <= {"default"})


def _sparse(config: PretrainedConfig) -> list[bool]:
    """Whether each layer is a mixture of experts."""
    family = FAMILIES[config.model_type]
    return [family.has(EXPERTS, config, layer) for layer in range(config.num_hidden_layers)]


def _normed_router(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    return np.asarray(a.layers >= 1) & bool(config.norm_topk_prob)


def _one_base(config: PretrainedConfig, a: Sizes[Any]) -> Any:
    bases = {kind["rope_theta"] for kind in config.rope_parameters.values()}
    return np.asarray(a.layers >= 1) & (len(bases) == 1)


RULES: tuple[Rule, ...] = (
    Rule(
        TRANSFORMERS_4,
        ("olmo3",),
        "one rotary base for all layers",
        "it knows one only",
        "models/olmo3/configuration_olmo3.py: rope_theta",
        known=READ,
        shape=_one_base,
    ),
    Rule(
        LLAMA_CPP,
        ("qwen2", "phi3", "olmo2", "granite", "nemotron"),
        HEADS_NEEDED,
        HEADS_REASON,
        "src/models/qwen2.cpp and the like: attn_q.weight is [n_embd, n_embd]",
        LOADING,
        tie=HIDDEN_OF_HEADS,
    ),
    Rule(
        LLAMA_CPP,
        ("gpt2",),
        FFN_NEEDED,
        FFN_REASON,
        "conversion/gpt2.py: add_feed_forward_length(4 * n_embd)",
        LOADING,
        tie=FFN_OF_HIDDEN,
    ),
    Rule(
        LLAMA_CPP,
        ("gemma2",),
        "windows in every other layer, the first one among them",
        "it takes layers 0, 2, 4, ... for those with a window",
        "src/models/gemma2.cpp: load_swa_pattern(ml, 2)",
        pattern=Pattern(_windowed, lambda place: place % 2 == 0),
    ),
    Rule(
        LLAMA_CPP,
        ("gemma3_text",),
        "five layers with a window before each without",
        "it takes every sixth layer for one without a window",
        "src/models/gemma3.cpp: load_swa_pattern(ml, 6)",
        pattern=Pattern(_windowed, lambda place: place % 6 < 5),
    ),
    Rule(
        LLAMA_CPP,
        ("smollm3",),
        "every fourth layer, and no other, without rotary embedding",
        "it reads no no_rope_layers",
        "src/models/smollm3.cpp: n_no_rope_layer_step = 4",
        pattern=Pattern(_rotated, lambda place: (place + 1) % 4 != 0),
    ),
    Rule(
        LLAMA_CPP,
        ("gemma2",),
        "query_pre_attn_scalar = head_dim, or hidden / heads with 46 layers",
        "it does not read query_pre_attn_scalar, and knows the 27B by its depth",
        "src/models/gemma2.cpp: f_attention_scale",
        shape=_gemma_scale(46),
    ),
    Rule(
        LLAMA_CPP,
        ("gemma3_text",),
        "query_pre_attn_scalar = head_dim, or hidden / heads with 62 layers",
        "it does not read query_pre_attn_scalar, and knows the 27B by its depth",
        "src/models/gemma3.cpp: f_attention_scale",
        shape=_gemma_scale(62),
    ),
    Rule(
        LLAMA_CPP,
        ("gpt_neox",),
        "a rotary base of 10,000",
        "its converter writes none for this type, and 10,000 is taken",
        "conversion/gptneox.py: set_gguf_parameters",
        shape=_default_base,
    ),
    Rule(
        LLAMA_CPP,
        ("qwen3_moe",),
        "experts in every layer",
        "it has no dense layers in this type",
        "src/models/qwen3moe.cpp: load_arch_tensors",
        LOADING,
        pattern=Pattern(_sparse, lambda place: True),
    ),
    Rule(
        LLAMA_CPP,
        ("qwen3_moe",),
        "norm_topk_prob",
        "it always norms the router's weights",
        "src/models/qwen3moe.cpp: build_moe_ffn",
        shape=_normed_router,
    ),
    Rule(
        LLAMA_CPP,
        tuple(FAMILIES),
        "rows of a multiple of 32",
        "its quantised formats take blocks of 32 values (k-quants 256) and leave other rows in F16",
        "ggml/src/ggml-common.h: QK8_0",
        QUANTISING,
        rows=Rows(32),
    ),
    Rule(
        LLAMA_CPP,
        ("mistral", "phi3", "qwen2"),
        "prompts that fit the window",
        "it ignores the window of this type",
        "src/models/phi3.cpp: LLAMA_SWA_TYPE_NONE",
        WINDOWS,
        shape=_unwindowed,
    ),
    Rule(
        LLAMA_CPP,
        ("gemma2",),
        "soft caps",
        "its converter takes a number for each",
        "conversion/gemma.py: Gemma2Model",
        LOADING,
        shape=_capped,
    ),
    Rule(
        MLX,
        ("gemma2",),
        "soft caps",
        "it divides by both",
        "mlx_lm/models/gemma2.py",
        LOADING,
        shape=_capped,
    ),
    Rule(
        CTRANSLATE2,
        ("llama", "qwen2"),
        HEADS_NEEDED,
        HEADS_REASON,
        "converters/transformers.py: LlamaLoader, Qwen2Loader",
        tie=HIDDEN_OF_HEADS,
    ),
    Rule(
        CTRANSLATE2,
        ("gemma2",),
        "no soft caps",
        "it applies none, neither to attention nor to logits",
        "converters/transformers.py: Gemma2Loader",
        shape=_uncapped,
    ),
    Rule(
        CTRANSLATE2,
        ("gemma2", "gemma3_text"),
        "query_pre_attn_scalar = head_dim",
        "it does not read query_pre_attn_scalar",
        "converters/transformers.py: Gemma2Loader, Gemma3Loader",
        shape=_own_scale,
    ),
    Rule(
        CTRANSLATE2,
        ("llama", "mistral", "qwen2", "qwen3", "gemma3_text"),
        "rotary embedding without scaling",
        "it takes another base or no factor with it",
        "converters/transformers.py: get_rotary_params, Gemma3Loader",
        shape=_unscaled_rope,
    ),
    Rule(
        CTRANSLATE2,
        ("gpt_neox",),
        "a rotary base of 10,000",
        "it reads none for this type",
        "converters/transformers.py: GPTNeoXLoader",
        shape=_default_base,
    ),
    Rule(
        CTRANSLATE2,
        ("gemma2", "gemma3_text", "mistral", "qwen2"),
        "prompts that fit the window",
        "it ignores the window of this type (gemma2, qwen2), or refuses longer prompts",
        "converters/transformers.py: Gemma2Loader, Gemma3Loader, MistralLoader, Qwen2Loader",
        WINDOWS,
        shape=_unwindowed,
    ),
    Rule(
        MLX,
        ("qwen2", "phi3", "granite", "mixtral"),
        HEADS_NEEDED,
        HEADS_REASON,
        "mlx_lm/models/qwen2.py and the like: head_dim = hidden_size // n_heads",
        LOADING,
        tie=HIDDEN_OF_HEADS,
    ),
    Rule(
        MLX,
        ("gpt_neox",),
        FFN_NEEDED,
        FFN_REASON,
        "mlx_lm/models/gpt_neox.py: MLP",
        LOADING,
        tie=FFN_OF_HIDDEN,
    ),
    Rule(
        MLX,
        ("gemma3_text",),
        "five layers with a window before each without",
        "it takes every sixth layer for one without a window",
        "mlx_lm/models/gemma3_text.py: sliding_window_pattern",
        pattern=Pattern(_windowed, lambda place: place % 6 < 5),
    ),
    Rule(
        MLX,
        tuple(FAMILIES),
        "rows of a multiple of 64",
        "its quantised formats take groups of 64 values and leave other rows as they are",
        "mlx_lm/utils.py: quantize_model",
        QUANTISING,
        rows=Rows(64),
    ),
    Rule(
        MLX,
        ("mistral", "gemma2", "phi3", "qwen2"),
        "prompts that fit the window",
        "it ignores the window of this type",
        "mlx_lm/models/gemma2.py and the like",
        WINDOWS,
        shape=_unwindowed,
    ),
    Rule(
        VLLM,
        ("qwen2",),
        HEADS_NEEDED,
        HEADS_REASON,
        "vllm/model_executor/models/qwen2.py: head_dim = hidden_size // total_num_heads",
        LOADING,
        READ,
        tie=HIDDEN_OF_HEADS,
    ),
    Rule(
        SGLANG,
        ("mixtral", "olmo2"),
        HEADS_NEEDED,
        HEADS_REASON,
        "sglang/srt/models/mixtral.py, olmo2.py: head_dim = hidden_size // total_num_heads",
        LOADING,
        READ,
        tie=HIDDEN_OF_HEADS,
    ),
    Rule(
        SGLANG,
        ("gemma2",),
        "windows in every other layer, the first one among them",
        "it takes layers 0, 2, 4, ... for those with a window",
        "sglang/srt/models/gemma2.py: layer_id % 2 == 0",
        known=READ,
        pattern=Pattern(_windowed, lambda place: place % 2 == 0),
    ),
)
