"""Tiny random teachers of all model types, with the rotary bases that real models have, and cuts.

The default bases of the configuration classes would hide that an engine takes its own default.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
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

from pruning import Architecture, Checkpoint, Ordering, Served, architecture_of, is_legal
from pruning.engines import ENGINES
from pruning.families import family_of, head_dim_of
from pruning.slicing import write_student

VOCABULARY, POSITIONS, WINDOW = 512, 256, 64
HEAD_DIM = 16

Values = dict[str, Any]
_SIZES: Values = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_HEAD_DIM: Values = {"head_dim": HEAD_DIM}
_MOE: Values = {**_SIZES, **_HEAD_DIM, "num_experts_per_tok": 2}
_GEMMA: Values = {
    **_SIZES,
    **_HEAD_DIM,
    "query_pre_attn_scalar": HEAD_DIM,
    "sliding_window": WINDOW,
    "tie_word_embeddings": True,
}
_GEMMA_3: Values = {
    **_GEMMA,
    "num_hidden_layers": 12,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
_SCALED: Values = {
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
_LARGEST: Values = {"head_dim": 32, "num_attention_heads": 8, "query_pre_attn_scalar": 16}
"""As in Gemma's 27B, the scale of attention is that of hidden / heads, not of a head's channels."""
_GPT2: Values = {
    "vocab_size": VOCABULARY,
    "n_positions": POSITIONS,
    "n_layer": 4,
    "n_embd": 128,
    "n_head": 8,
    "n_inner": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONG: Values = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + 0.1 * i for i in range(HEAD_DIM // 2)],
        "long_factor": [2.0 + 0.1 * i for i in range(HEAD_DIM // 2)],
    },
    "original_max_position_embeddings": 128,
}


def _rope(base: float, **more: Any) -> Values:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base, **more}}


_GRANITE: Values = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.0625,
    "logits_scaling": 8.0,
}

CONFIGS: dict[str, tuple[type, Values]] = {
    "llama": (LlamaConfig, {**_SIZES, **_HEAD_DIM, **_rope(5e5)}),
    "llama, as many KV heads": (
        LlamaConfig,
        {**_SIZES, **_HEAD_DIM, **_rope(5e5), "num_key_value_heads": 8},
    ),
    "llama 3": (
        LlamaConfig,
        {
            **_SIZES,
            **_HEAD_DIM,
            "rope_parameters": _LLAMA_3,
            "max_position_embeddings": 131_072,
        },
    ),
    "llama, biases": (
        LlamaConfig,
        {**_SIZES, **_HEAD_DIM, **_rope(5e5), "attention_bias": True, "mlp_bias": True},
    ),
    "mistral": (MistralConfig, {**_SIZES, **_HEAD_DIM, **_rope(1e6), "sliding_window": None}),
    "mistral, window": (
        MistralConfig,
        {**_SIZES, **_HEAD_DIM, **_rope(1e6), "sliding_window": WINDOW},
    ),
    "qwen2": (Qwen2Config, {**_SIZES, **_rope(1e6)}),
    "qwen2, windows": (
        Qwen2Config,
        {
            **_SIZES,
            **_rope(1e6),
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 2,
        },
    ),
    "qwen3": (Qwen3Config, {**_SIZES, **_HEAD_DIM, **_rope(1e6)}),
    "gemma2": (Gemma2Config, {**_GEMMA, **_rope(1e4)}),
    "gemma2, no soft caps": (
        Gemma2Config,
        {
            **_GEMMA,
            **_rope(1e4),
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "gemma2 27B": (Gemma2Config, {**_GEMMA, **_rope(1e4), **_LARGEST, "num_hidden_layers": 46}),
    "gemma3_text": (Gemma3TextConfig, _GEMMA_3),
    "gemma3_text, scaled": (Gemma3TextConfig, {**_GEMMA_3, **_SCALED}),
    "gemma3_text 27B": (Gemma3TextConfig, {**_GEMMA_3, **_LARGEST, "num_hidden_layers": 62}),
    "phi3": (Phi3Config, {**_SIZES, **_rope(25e4)}),
    "phi3, window": (Phi3Config, {**_SIZES, **_rope(25e4), "sliding_window": WINDOW}),
    "phi3, long context": (Phi3Config, {**_SIZES, **_LONG}),
    "olmo2": (Olmo2Config, {**_SIZES, **_rope(5e5)}),
    "granite": (GraniteConfig, {**_SIZES, **_rope(1e6), **_GRANITE}),
    "nemotron": (NemotronConfig, {**_SIZES, **_rope(1e5, partial_rotary_factor=0.5)}),
    "smollm3": (
        SmolLM3Config,
        {
            **_SIZES,
            **_rope(5e6),
            "num_hidden_layers": 8,
            "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0],
        },
    ),
    "mixtral": (MixtralConfig, {**_MOE, **_rope(1e6), "num_local_experts": 4}),
    "qwen3_moe": (
        Qwen3MoeConfig,
        {
            **_MOE,
            **_rope(1e6),
            "num_experts": 4,
            "moe_intermediate_size": 128,
            "norm_topk_prob": True,
        },
    ),
    "qwen3_moe, router as it is": (
        Qwen3MoeConfig,
        {
            **_MOE,
            **_rope(1e6),
            "num_experts": 4,
            "moe_intermediate_size": 128,
            "norm_topk_prob": False,
        },
    ),
    "qwen3_moe, one dense layer": (
        Qwen3MoeConfig,
        {
            **_MOE,
            **_rope(1e6),
            "num_experts": 4,
            "moe_intermediate_size": 128,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
        },
    ),
    "gpt2": (GPT2Config, _GPT2),
    "gpt_neox": (
        GPTNeoXConfig,
        {**_SIZES, **_rope(1e4, partial_rotary_factor=0.25), "intermediate_size": 512},
    ),
    "gpt_neox, rotated in full, another base": (
        GPTNeoXConfig,
        {**_SIZES, **_rope(1e5, partial_rotary_factor=1.0), "intermediate_size": 512},
    ),
}


@dataclass(frozen=True)
class Student:
    """One cut of one teacher."""

    teacher: str
    cut: str
    architecture: Architecture
    kept: tuple[int, ...]


def build(name: str, **changed: Any) -> PreTrainedModel:
    """A teacher with every tensor random, as large as in a trained model: attention that looks at
    positions, and logits that a soft cap would change. `changed` are values of its configuration.
    """
    kind, values = CONFIGS[name]
    config = kind(**(values | changed))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    generator = torch.Generator().manual_seed(0)
    offset = family_of(model.config).norm_offset
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                query_or_key = any(part in tensor_name for part in ("q_proj", "k_proj"))
                scale = tensor.shape[-1] ** -0.5 * (2 if query_or_key else 1)
                tensor.normal_(0, 1 if "embed" in tensor_name else scale, generator=generator)
            else:
                tensor.normal_(0, 0.1, generator=generator)
                if "norm" in tensor_name or "ln_" in tensor_name:
                    tensor.add_(0 if tensor_name.endswith("bias") else 1 - offset)
    return model


def students_of(name: str, config: Any) -> Iterator[Student]:
    """The teacher whole, and cut along the axes that its model type allows, alone and together."""
    whole = architecture_of(config)
    every = tuple(range(whole.layers))
    narrow = replace(whole, hidden=96)
    if not is_legal(config, narrow):
        narrow = replace(whole, hidden=6 * head_dim_of(config), **_heads(whole, 6))
    tied = replace(whole, hidden=6 * head_dim_of(config), **_heads(whole, 6))
    fewer: dict[str, Any] = {
        "experts": min(3, whole.experts),
        "expert_ffn": min(96, whole.expert_ffn),
    }
    shapes = {
        "whole": whole,
        "hidden": narrow,
        "heads": replace(whole, **_heads(whole, 4)),
        "FFN": replace(whole, ffn=whole.ffn * 3 // 4),
        "FFN, no even rows": replace(whole, ffn=whole.ffn - 8),
        "experts": replace(whole, **fewer),
        "hidden and heads": tied,
        "all widths": replace(tied, ffn=whole.ffn * 3 // 4, **fewer),
    }
    seen: set[Architecture] = set()
    for cut, shape in shapes.items():
        if is_legal(config, shape) and shape not in seen:
            seen.add(shape)
            yield Student(name, cut, shape, every)
    yield from _depths(name, config, shapes)


def _depths(name: str, config: Any, shapes: dict[str, Architecture]) -> Iterator[Student]:
    """Layer 1 left out, whatever the pattern; and what the patterns of the engines leave."""
    whole = shapes["whole"]
    irregular = tuple(layer for layer in range(whole.layers) if layer != 1)
    depths = {"depth": irregular}
    served = Served(
        config, tuple(n for n in ENGINES if config.model_type in ENGINES[n].model_types)
    )
    if served.places is not None:
        last_first = torch.arange(whole.layers).flip(0)
        ordering = replace(Ordering.identity(whole), layers=last_first, places=served.places)
        kept = ordering.kept_layers(whole.layers // 2)
        depths["depth, pattern kept"] = tuple(kept)
    for cut, layers in depths.items():
        for also, shape in (("", whole), (" and all widths", shapes["all widths"])):
            student = replace(shape, layers=len(layers))
            if is_legal(config, student):
                yield Student(name, cut + also, student, layers)


def _heads(whole: Architecture, count: int) -> dict[str, Any]:
    group = whole.heads // whole.kv_heads
    return {"heads": count, "kv_heads": count // group}


def write_teacher(name: str, folder: Path, **changed: Any) -> None:
    """The teacher as transformers writes it, with a tokenizer of one token per number."""
    build(name, **changed).save_pretrained(folder)
    tokens = {f"t{number}": number for number in range(VOCABULARY)}
    words = Tokenizer(models.WordLevel(tokens, unk_token="t3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "t1", "eos_token": "t2", "pad_token": "t0", "unk_token": "t3"}
    words.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write(student: Student, teacher: Path, folder: Path) -> None:
    """The student with a random ordering of nothing: the first parts of everything."""
    write_student(Checkpoint(teacher), student.architecture, list(student.kept), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((teacher / file).read_text())
