"""Tiny teachers whose every tensor is random, one per variant of the supported families."""

import copy
import random
import re
from collections.abc import Callable, Iterable, Sequence
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
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pruning import (
    Architecture,
    Block,
    Importance,
    Ordering,
    architecture_of,
    family_of,
    is_legal,
)
from pruning.families import ALL_SHARES, expert_groups, experts_per_token, kinds_of
from pruning.families.table import head_dim_of
from pruning.families.table.common import HEADS_DIVIDE_HIDDEN
from pruning.importance import LayerMix
from tests.exactness import exactly
from tests.pruning.dense_configs import DENSE_CONFIGS, SECOND_VARIANTS
from tests.pruning.gemma4 import GEMMA4
from tests.pruning.hybrids import HYBRIDS
from tests.pruning.mixtures import MIXED_MIXTURES, MIXTURES
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
    **{name: value for name, value in COMMON.items() if name != "head_dim"},
    **PARTIAL,
    "num_attention_heads": 6,
}
_MOE: Values = {**COMMON, **ROPE, **GQA, "num_experts_per_tok": 2}

CONFIGS: dict[str, tuple[type, Values]] = {
    "llama-gqa-tied": (LlamaConfig, {**COMMON, **ROPE, **GQA, "hidden_size": 54, **TIED}),
    "llama-gqa-biases": (
        LlamaConfig,
        {**COMMON, **ROPE, **GQA, "hidden_size": 54, **BIASES, **UNTIED},
    ),
    "llama-mha-biases": (LlamaConfig, {**COMMON, **ROPE, **MHA, **BIASES, **TIED}),
    "llama-mha": (LlamaConfig, {**COMMON, **ROPE, **MHA, "hidden_size": 60, **UNTIED}),
    "mistral-gqa": (
        MistralConfig,
        {**COMMON, **ROPE, **GQA, "hidden_size": 50, "sliding_window": 6, **UNTIED},
    ),
    "mistral-gqa-tied": (MistralConfig, {**COMMON, **ROPE, **GQA, **TIED}),
    "mistral-mha": (MistralConfig, {**COMMON, **ROPE, **MHA, "hidden_size": 50, **UNTIED}),
    "nemotron": (NemotronConfig, {**COMMON, **PARTIAL, **GQA, **BIASES, **UNTIED}),
    "nemotron-tied": (NemotronConfig, {**COMMON, **PARTIAL, **GQA, **TIED}),
    "qwen2": (Qwen2Config, {**COMMON, **ROPE, **GQA, **UNTIED}),
    "qwen2-windows": (
        Qwen2Config,
        {**COMMON, **ROPE, **GQA, **TIED, **WINDOWS, "use_sliding_window": True},
    ),
    "qwen3": (Qwen3Config, {**COMMON, **ROPE, **GQA, **TIED}),
    "qwen3-biases": (Qwen3Config, {**COMMON, **ROPE, **MHA, "attention_bias": True, **UNTIED}),
    "gemma2": (
        Gemma2Config,
        {**COMMON, **ROPE, **GQA, "hidden_size": 54, **WINDOWS, "attn_logit_softcapping": 5.0},
    ),
    "gemma2-untied": (
        Gemma2Config,
        {**COMMON, **ROPE, **GQA, "hidden_size": 54, "attention_bias": True, **UNTIED},
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            **COMMON,
            **GQA,
            "hidden_size": 54,
            **WINDOWS,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
            },
        },
    ),
    "phi3": (Phi3Config, {**COMMON, **PARTIAL, **GQA, **UNTIED}),
    "phi3-mha-tied": (Phi3Config, {**COMMON, **ROPE, **MHA, **TIED}),
    "phi3-long": (Phi3Config, {**COMMON, **_LONG, "num_attention_heads": 6, **UNTIED}),
    "olmo2": (Olmo2Config, {**COMMON, **ROPE, **GQA, **UNTIED}),
    "olmo2-biases": (Olmo2Config, {**COMMON, **ROPE, **MHA, "attention_bias": True, **TIED}),
    "granite": (
        GraniteConfig,
        {
            **COMMON,
            **ROPE,
            **GQA,
            **BIASES,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
            **TIED,
        },
    ),
    "smollm3": (
        SmolLM3Config,
        {**COMMON, **ROPE, **GQA, "mlp_bias": True, "no_rope_layers": [1, 0, 1], **TIED},
    ),
    "smollm3-windows": (
        SmolLM3Config,
        {
            **COMMON,
            **ROPE,
            **GQA,
            "no_rope_layers": [0, 1, 1],
            "use_sliding_window": True,
            "sliding_window": 6,
            **UNTIED,
        },
    ),
    "gpt2": (GPT2Config, _GPT2),
    "gpt2-untied": (GPT2Config, {**_GPT2, "n_inner": 40, **UNTIED}),
    "gpt-neox": (GPTNeoXConfig, {**_NEOX, **UNTIED}),
    "gpt-neox-sequential": (
        GPTNeoXConfig,
        {**_NEOX, "use_parallel_residual": False, "attention_bias": False, **TIED},
    ),
    **DENSE_CONFIGS,
    "mixtral": (MixtralConfig, {**_MOE, "num_local_experts": 5, **UNTIED}),
    "mixtral-mha-tied": (MixtralConfig, {**_MOE, **MHA, "num_local_experts": 4, **TIED}),
    "qwen3-moe": (
        Qwen3MoeConfig,
        {**_MOE, "num_experts": 5, "moe_intermediate_size": 24, "norm_topk_prob": True, **UNTIED},
    ),
    "qwen3-moe-mixed": (
        Qwen3MoeConfig,
        {**_MOE, "num_experts": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1], **TIED},
    ),
}
CONFIGS |= GEMMA4 | MIXTURES | HYBRIDS
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
    *(name for name in DENSE_CONFIGS if name not in SECOND_VARIANTS),
    "mixtral",
    "qwen3-moe-mixed",
)
"""A variant of each type that has most of what its layers may have: for tests of single layers."""
MIXED = ("qwen3-moe-mixed", *MIXED_MIXTURES, *HYBRIDS, *GEMMA4)
"""Variants whose layers differ in kind, so that depth decides more than a number."""


def build_config(variant: str, **overrides: Any) -> Any:
    config_class, values = CONFIGS[variant]
    # A copy: some configurations write to the rotary parameters that they are given.
    return config_class(**copy.deepcopy({**values, **overrides}))


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
            if name.endswith("layer_scalar"):
                buffer.normal_(1, 0.25, generator=generator)
    # What its code keeps in fp32 has values that fp32 has.
    return model if dtype is None else model.to(dtype)


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
        expert_groups=expert_groups(config),
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
    return rows.shape[-1] == 1 or bool((rows != torch.arange(rows.shape[-1])).any(-1).all())


def token_ids(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(96, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Of three sequences; a model in float64 rounds nothing to fp32 on the way."""
    with exactly(model):
        return model.eval()(input_ids=token_ids(3, 17), use_cache=False).logits


ANGLES = re.compile(r"rotary_embs?(\.\d+)?$")
"""Modules that compute angles: a product of vectors, which no formula of operations counts."""


def installed(model_types: Iterable[str]) -> set[str]:
    """Those that the installed transformers knows; the oldest that is supported lacks some."""
    return {each for each in model_types if each in CONFIG_MAPPING}


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference, relative to the largest of `second`."""
    return float((first - second).abs().max() / second.abs().max())


EXPANDED = ("bamba", "granitemoehybrid")
"""Types whose Mamba heads go with the hidden size."""


def going_together(config: Any, architecture: Architecture) -> Architecture:
    """`architecture` with the hidden size that goes with its recurrent heads, where one must."""
    if family_of(config).hidden_follows is None:
        return architecture
    width = architecture.ssm_heads * architecture.ssm_head_dim
    return replace(architecture, hidden=width // getattr(config, "mamba_expand", 1))


def smaller_than(config: Any) -> Architecture:
    """A student smaller on every axis; the odd sizes are those that a family takes."""
    teacher = architecture_of(config)
    grouped = teacher.heads != teacher.kv_heads
    architecture = replace(
        teacher,
        layers=_fewer_layers(config),
        heads=4,
        kv_heads=2 if grouped else 4,
        ffn=min(17, teacher.ffn),
        experts=_fewer_experts(config),
        expert_ffn=min(16, teacher.expert_ffn),
        shared_ffn=min(11, teacher.shared_ffn),
        experts_per_token=int(teacher.experts > 0 and experts_per_token(config) > 1),
        expert_latent=min(8, teacher.expert_latent),
        ssm_heads=min(4 if config.model_type in EXPANDED else 2, teacher.ssm_heads),
        ssm_head_dim=min(4 if config.model_type in EXPANDED else 6, teacher.ssm_head_dim),
        ssm_groups=min(1, teacher.ssm_groups),
        ssm_state=min(5, teacher.ssm_state),
    )
    if architecture.shared_ffn % max(architecture.expert_ffn, 1) and not is_legal(
        config, replace(teacher, shared_ffn=architecture.shared_ffn)
    ):  # experts of one width
        architecture = replace(architecture, shared_ffn=architecture.expert_ffn)
    if config.model_type.startswith("lfm2"):
        architecture = replace(architecture, ssm_heads=24)
    if family_of(config).hidden_follows is not None:
        return going_together(config, architecture)
    if hidden_follows_heads(config):
        return replace(architecture, hidden=4 * 8)
    divides = teacher.experts or heads_divide_hidden(config)
    return replace(architecture, hidden=24 if divides else 23)


def _fewer_layers(config: Any) -> int:
    """Two, or some of each kind."""
    kinds = kinds_of(config)
    if family_of(config).layer_heads is not None:
        return ALL_SHARES.fewest(kinds) + 1
    return len(set(kinds)) if architecture_of(config).ssm_heads else 2


def hidden_follows_heads(config: Any) -> bool:
    """Whether the hidden size is that of the heads; so it is for Phi-3's long-context factors."""
    teacher = architecture_of(config)
    whole = teacher.heads * head_dim_of(config) == teacher.hidden
    return whole and not is_legal(config, replace(teacher, hidden=teacher.hidden // 2))


def heads_divide_hidden(config: Any) -> bool:
    """Whether the hidden size must be a multiple of the heads."""
    return HEADS_DIVIDE_HIDDEN in family_of(config).constraints


def _fewer_experts(config: Any) -> int:
    """Three, or two of each of the groups that they are routed in."""
    groups = expert_groups(config)
    return min(3 if groups == 1 else 2 * groups, architecture_of(config).experts)


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
    if hidden_follows_heads(config) or not generator.randrange(3):
        heads, kv_heads = teacher.heads, teacher.kv_heads
    kinds = getattr(config, "layer_types", None) or []
    window = family.windows and kinds[layer] == "full_attention" and "sliding_attention" in kinds
    ffn = experts = 0
    if generator.randrange(4):
        experts = (
            generator.randint(0, teacher.experts) if family.has("experts", config, layer) else 0
        )
        ffn = 0 if family.has("experts", config, layer) else generator.randint(1, teacher.ffn)
    expert_ffn = 8 * generator.randint(1, teacher.expert_ffn // 8) if experts else 0
    return Block(heads, kv_heads, ffn, experts, expert_ffn, int(window))
