"""Tiny teachers whose every tensor is random, one per variant of the supported families."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedModel

from pruning import Architecture, Importance, Ordering, architecture_of

TOLERANCE = 1e-5
"""Largest difference of logits, relative to the largest logit."""

_COMMON = {
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
    "max_position_embeddings": 64,
}
_GQA = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8}
_MHA = {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 8}

CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "llama-gqa-tied": (
        LlamaConfig,
        {**_GQA, "hidden_size": 48, "intermediate_size": 40, "tie_word_embeddings": True},
    ),
    "llama-gqa-biases": (
        LlamaConfig,
        {
            **_GQA,
            "hidden_size": 48,
            "intermediate_size": 40,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "llama-mha-biases": (
        LlamaConfig,
        {
            **_MHA,
            "hidden_size": 48,
            "intermediate_size": 56,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "llama-mha": (
        LlamaConfig,
        {**_MHA, "hidden_size": 60, "intermediate_size": 40, "tie_word_embeddings": False},
    ),
    "mistral-gqa": (
        MistralConfig,
        {**_GQA, "hidden_size": 50, "intermediate_size": 40, "tie_word_embeddings": False},
    ),
    "mistral-gqa-tied": (
        MistralConfig,
        {**_GQA, "hidden_size": 64, "intermediate_size": 40, "tie_word_embeddings": True},
    ),
    "mistral-mha": (
        MistralConfig,
        {**_MHA, "hidden_size": 50, "intermediate_size": 40, "tie_word_embeddings": False},
    ),
}
VARIANTS = list(CONFIGS)

SMALLER = {
    "gqa": Architecture(layers=2, hidden=24, heads=4, kv_heads=2, ffn=17),
    "mha": Architecture(layers=2, hidden=24, heads=4, kv_heads=4, ffn=17),
}
"""A student that is smaller on every axis, legal for every variant of the attention."""


def build_config(variant: str, **overrides: Any) -> Any:
    config_class, values = CONFIGS[variant]
    return config_class(**{**_COMMON, **values, **overrides})


def build_teacher(variant: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A model with random norms and biases too, so that no error can hide behind ones and zeros."""
    model = AutoModelForCausalLM.from_config(build_config(variant, **overrides)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.25, generator=generator)
            if "norm" in name:
                parameter.add_(1)
    return model


def random_ordering(config: Any, seed: int = 1) -> Ordering:
    sizes = architecture_of(config)
    generator = torch.Generator().manual_seed(seed)
    return Ordering.from_importance(
        Importance(
            hidden=torch.rand(sizes.hidden, generator=generator),
            heads=torch.rand(sizes.layers, sizes.heads, generator=generator),
            ffn=torch.rand(sizes.layers, sizes.ffn, generator=generator),
            layers=torch.rand(sizes.layers, generator=generator),
        ),
        sizes,
    )


def token_ids(*shape: int, seed: int = 2) -> Tensor:
    return torch.randint(96, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(input_ids=token_ids(3, 17), use_cache=False).logits


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference, relative to the largest of `second`."""
    return float((first - second).abs().max() / second.abs().max())


def smaller_than(config: Any) -> Architecture:
    """A student smaller on every axis; its hidden size is odd where the family takes that."""
    gqa = config.num_attention_heads != config.num_key_value_heads
    architecture = SMALLER["gqa" if gqa else "mha"]
    return replace(architecture, hidden=23) if config.model_type == "mistral" else architecture
