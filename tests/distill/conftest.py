"""Tiny random models, tokens and a byte tokenizer for the tests of `distill`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distill import TargetFormat
from tests.byte_llama import byte_tokenizer

VOCABULARY = 64
FORMS = {
    "sampled": TargetFormat.sampled(VOCABULARY, 8),
    "topk": TargetFormat(VOCABULARY, 16),
    "full": TargetFormat.whole(VOCABULARY),
}
"""Forms of stored targets, by the names of their settings."""
MakeModel = Callable[..., LlamaForCausalLM]
MakeBlocks = Callable[..., NDArray[Any]]


@pytest.fixture
def make_model() -> MakeModel:
    """A random Llama; `sharpness` multiplies its logits, `noise` moves all its weights."""

    def make(
        vocabulary: int = 64,
        sharpness: float = 1.0,
        noise: float = 0.0,
        seed: int = 0,
        hidden: int = 16,
        length: int = 64,
    ) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=length,
            tie_word_embeddings=False,
            initializer_range=0.3,
        )
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(sharpness)
            generator = torch.Generator().manual_seed(99)
            for parameter in model.parameters():
                shake = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * parameter.abs().mean() * shake)
        return model

    return make


@pytest.fixture
def make_blocks() -> MakeBlocks:
    def make(count: int, length: int, vocabulary: int = 64) -> NDArray[Any]:
        generator = np.random.default_rng(5)
        return generator.integers(0, vocabulary, (count, length)).astype(np.uint16)

    return make


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte, and one for the end of a text."""
    return byte_tokenizer()
