"""Tiny teachers whose every tensor is random, one per variant of the supported families."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    NemotronConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from pruning import (
    Architecture,
    Block,
    Importance,
    Ordering,
    architecture_of,
    family_of,
    is_legal,
)
from pruning.families import kinds_of
from pruning.importance import LayerMix
from tests.exactness import exactly
from tests.pruning.hybrids import HYBRIDS

Values = dict[str, Any]

_COMMON: Values = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_ROPE: Values = {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
_PARTIAL: Values = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 700.0,
        "partial_rotary_factor": 0.5,
    }
}
_GQA: Values = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 8}
_MHA: Values = {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8}
_BIASES: Values = {"attention_bias": True, "mlp_bias": True}
_TIED: Values = {"tie_word_embeddings": True}
_UNTIED: Values = {"tie_word_embeddings": False}
_WINDOWS: Values = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_LONG = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 700.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 2.1, 2.2, 2.3],
    },
    "original_max_position_embeddings": 32,
}
_GPT2: Values = {
    "vocab_size": 96,
    "n_layer": 3,
    "n_embd": 48,
    "n_head": 6,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEOX: Values = {
    **{name: value for name, value in _COMMON.items() if name != "head_dim"},
    **_PARTIAL,
    "num_attention_heads": 6,
}
_MOE: Values = {**_COMMON, **_ROPE, **_GQA, "num_experts_per_tok": 2}

CONFIGS: dict[str, tuple[type, Values]] = {
    "llama-gqa-tied": (LlamaConfig, {**_COMMON, **_ROPE, **_GQA, "hidden_size": 54, **_TIED}),
    "llama-gqa-biases": (
        LlamaConfig,
        {**_COMMON, **_ROPE, **_GQA, "hidden_size": 54, **_BIASES, **_UNTIED},
    ),
    "llama-mha-biases": (LlamaConfig, {**_COMMON, **_ROPE, **_MHA, **_BIASES, **_TIED}),
    "llama-mha": (LlamaConfig, {**_COMMON, **_ROPE, **_MHA, "hidden_size": 60, **_UNTIED}),
    "mistral-gqa": (
        MistralConfig,
        {**_COMMON, **_ROPE, **_GQA, "hidden_size": 50, "sliding_window": 6, **_UNTIED},
    ),
    "mistral-gqa-tied": (MistralConfig, {**_COMMON, **_ROPE, **_GQA, **_TIED}),
    "mistral-mha": (MistralConfig, {**_COMMON, **_ROPE, **_MHA, "hidden_size": 50, **_UNTIED}),
    "nemotron": (NemotronConfig, {**_COMMON, **_PARTIAL, **_GQA, **_BIASES, **_UNTIED}),
    "nemotron-tied": (NemotronConfig, {**_COMMON, **_PARTIAL, **_GQA, **_TIED}),
    "qwen2": (Qwen2Config, {**_COMMON, **_ROPE, **_GQA, **_UNTIED}),
    "qwen2-windows": (
        Qwen2Config,
        {**_COMMON, **_ROPE, **_GQA, **_TIED, **_WINDOWS, "use_sliding_window": True},
    ),
    "qwen3": (Qwen3Config, {**_COMMON, **_ROPE, **_GQA, **_TIED}),
    "qwen3-biases": (Qwen3Config, {**_COMMON, **_ROPE, **_MHA, "attention_bias": True, **_UNTIED}),
    "gemma2": (
        Gemma2Config,
        {**_COMMON, **_ROPE, **_GQA, "hidden_size": 54, **_WINDOWS, "attn_logit_softcapping": 5.0},
    ),
    "gemma2-untied": (
        Gemma2Config,
        {**_COMMON, **_ROPE, **_GQA, "hidden_size": 54, "attention_bias": True, **_UNTIED},
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            **_COMMON,
            **_GQA,
            "hidden_size": 54,
            **_WINDOWS,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
            },
        },
    ),
    "phi3": (Phi3Config, {**_COMMON, **_PARTIAL, **_GQA, **_UNTIED}),
    "phi3-mha-tied": (Phi3Config, {**_COMMON, **_ROPE, **_MHA, **_TIED}),
    "phi3-long": (Phi3Config, {**_COMMON, **_LONG, "num_attention_heads": 6, **_UNTIED}),
    "olmo2": (Olmo2Config, {**_COMMON, **_ROPE, **_GQA, **_UNTIED}),
    "olmo2-biases": (Olmo2Config, {**_COMMON, **_ROPE, **_MHA, "attention_bias": True, **_TIED}),
    "granite": (
        GraniteConfig,
        {
            **_COMMON,
            **_ROPE,
            **_GQA,
            **_BIASES,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
            **_TIED,
        },
    ),
    "smollm3": (
        SmolLM3Config,
        {**_COMMON, **_ROPE, **_GQA, "mlp_bias": True, "no_rope_layers": [1, 0, 1], **_TIED},
    ),
    "smollm3-windows": (
        SmolLM3Config,
        {
            **_COMMON,
            **_ROPE,
            **_GQA,
            "no_rope_layers": [0, 1, 1],
            "use_sliding_window": True,
            "sliding_window": 6,
            **_UNTIED,
        },
    ),
    "gpt2": (GPT2Config, _GPT2),
    "gpt2-untied": (GPT2Config, {**_GPT2, "n_inner": 40, **_UNTIED}),
    "gpt-neox": (GPTNeoXConfig, {**_NEOX, **_UNTIED}),
    "gpt-neox-sequential": (
        GPTNeoXConfig,
        {**_NEOX, "use_parallel_residual": False, "attention_bias": False, **_TIED},
    ),
    "mixtral": (MixtralConfig, {**_MOE, "num_local_experts": 5, **_UNTIED}),
    "mixtral-mha-tied": (MixtralConfig, {**_MOE, **_MHA, "num_local_experts": 4, **_TIED}),
    "qwen3-moe": (
        Qwen3MoeConfig,
        {**_MOE, "num_experts": 5, "moe_intermediate_size": 24, "norm_topk_prob": True, **_UNTIED},
    ),
    "qwen3-moe-mixed": (
        Qwen3MoeConfig,
        {**_MOE, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1], **_TIED},
    ),
}
CONFIGS |= HYBRIDS
VARIANTS = list(CONFIGS)
TYPES = (
    "llama-gqa-biases",
    "mistral-gqa",
    "nemotron",
    "qwen2-windows",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "granite",
    "smollm3-windows",
    "gpt2",
    "gpt-neox",
    "gpt-neox-sequential",
    "mixtral",
    "qwen3-moe-mixed",
)
"""A variant of each type that has most of what its layers may have: for tests of single layers."""
MIXED = ("qwen3-moe-mixed", *HYBRIDS)
"""Variants whose layers differ in kind, so that depth decides more than a number."""


def build_config(variant: str, **overrides: Any) -> Any:
    config_class, values = CONFIGS[variant]
    return config_class(**{**values, **overrides})


def build_teacher(
    variant: str, seed: int = 0, dtype: torch.dtype | None = None, **overrides: Any
) -> PreTrainedModel:
    """A model with random norms and biases too, so that no error can hide behind ones and zeros."""
    config = build_config(variant, **overrides)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.25, generator=generator)
            if "norm" in name or "ln_" in name:
                parameter.add_(1)
        for name, buffer in model.named_buffers():
            if name.endswith("bias"):  # a router's correction
                buffer.normal_(0, 0.25, generator=generator)
    return model


def random_ordering(config: Any, seed: int = 1) -> Ordering:
    sizes = architecture_of(config)
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return Ordering.from_importance(
        Importance(
            hidden=rand(sizes.hidden),
            heads=rand(sizes.layers, sizes.heads),
            ffn=rand(sizes.layers, sizes.ffn),
            layers=rand(sizes.layers),
            experts=rand(sizes.layers, sizes.experts),
            expert_ffn=rand(sizes.layers, sizes.experts, sizes.expert_ffn),
            shared_ffn=rand(sizes.layers, sizes.shared_ffn),
            expert_latent=rand(sizes.layers, sizes.expert_latent),
            ssm_heads=rand(sizes.layers, sizes.ssm_heads),
            ssm_head_dim=_channels(family_of(config).shared_channels, sizes, rand),
            ssm_state=rand(sizes.layers, sizes.ssm_groups, sizes.ssm_state),
        ),
        sizes,
        mix=LayerMix.of(config),
    )


def _channels(shared: bool, sizes: Architecture, rand: Callable[..., Tensor]) -> Tensor:
    heads, channels = sizes.ssm_heads, sizes.ssm_head_dim
    if shared:
        return rand(sizes.layers, 1, channels).expand(-1, heads, -1)
    return rand(sizes.layers, heads, channels)


def shuffling_ordering(config: Any) -> Ordering:
    """A random ordering that leaves no row of any axis as it was."""
    for seed in range(1000):
        ordering = random_ordering(config, seed)
        rows = [ordering.hidden[None], ordering.heads, ordering.kv_heads, ordering.ffn]
        rows += [ordering.experts, ordering.expert_ffn.flatten(0, 1)]
        rows += [ordering.shared_ffn, ordering.expert_latent]
        rows += [ordering.ssm_heads, ordering.ssm_groups]
        rows += [ordering.ssm_head_dim.flatten(0, 1), ordering.ssm_state.flatten(0, 1)]
        if all(_shuffled(axis) for axis in rows if axis.numel()):
            return ordering
    raise AssertionError("no seed shuffles every axis")


def _shuffled(rows: Tensor) -> bool:
    return bool((rows != torch.arange(rows.shape[-1])).any(-1).all())


def token_ids(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(96, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Of three sequences; a model in float64 rounds nothing to fp32 on the way."""
    with exactly(model):
        return model.eval()(input_ids=token_ids(3, 17), use_cache=False).logits


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference, relative to the largest of `second`."""
    return float((first - second).abs().max() / second.abs().max())


def smaller_than(config: Any) -> Architecture:
    """A student smaller on every axis; the odd sizes are those that a family takes."""
    teacher = architecture_of(config)
    grouped = teacher.heads != teacher.kv_heads
    architecture = replace(
        teacher,
        layers=len(set(kinds_of(config))) if teacher.ssm_heads else 2,
        heads=4,
        kv_heads=2 if grouped else 4,
        ffn=min(17, teacher.ffn),
        experts=min(3, teacher.experts),
        expert_ffn=min(16, teacher.expert_ffn),
        shared_ffn=min(11, teacher.shared_ffn),
        expert_latent=min(8, teacher.expert_latent),
        ssm_heads=min(2, teacher.ssm_heads),
        ssm_head_dim=min(6, teacher.ssm_head_dim),
        ssm_groups=min(1, teacher.ssm_groups),
        ssm_state=min(5, teacher.ssm_state),
    )
    if config.model_type in ("gpt2", "gpt_neox") or "short_factor" in (
        getattr(config, "rope_parameters", None) or {}
    ):
        return replace(architecture, hidden=4 * 8)
    divides = teacher.experts or config.model_type in ("llama", "gemma2", "gemma3_text")
    return replace(architecture, hidden=24 if divides else 23)


def per_layer_of(config: Any, kept_layers: Sequence[int], seed: int) -> Architecture:
    """A random student whose layers differ, the first without attention, one without an FFN."""
    generator, teacher = random.Random(seed), architecture_of(config)
    while True:
        blocks = [_random_block(config, layer, generator) for layer in kept_layers]
        blocks[0] = replace(blocks[0], heads=0, kv_heads=0, window=0)
        architecture = Architecture.of_blocks(teacher.hidden, blocks)
        whole = sum(block.has_attention + block.has_ffn for block in blocks)
        if whole == 2 * len(blocks) - 2 and is_legal(config, architecture):
            return architecture


def _random_block(config: Any, layer: int, generator: random.Random) -> Block:
    teacher, family = architecture_of(config), family_of(config)
    kv_heads = generator.randint(1, teacher.kv_heads)
    heads = kv_heads * generator.randint(1, teacher.heads // teacher.kv_heads)
    if config.model_type in ("gpt2", "gpt_neox") or not generator.randrange(3):
        heads, kv_heads = teacher.heads, teacher.kv_heads
    kinds = getattr(config, "layer_types", None) or []
    window = family.windows and kinds[layer] == "full_attention" and "sliding_attention" in kinds
    ffn = experts = 0
    if generator.randrange(4):
        experts = generator.randint(0, teacher.experts) if family.is_sparse(config, layer) else 0
        ffn = 0 if family.is_sparse(config, layer) else generator.randint(1, teacher.ffn)
    expert_ffn = 8 * generator.randint(1, teacher.expert_ffn // 8) if experts else 0
    return Block(heads, kv_heads, ffn, experts, expert_ffn, int(window))
