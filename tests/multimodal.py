"""Tiny random multimodal models, as a user may bring one, with a byte-level tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMultimodalLM,
    Gemma3Config,
    Gemma4Config,
    InternVLConfig,
    Llama4Config,
    LlavaConfig,
    Mistral3Config,
    PretrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3_5Config,
    Qwen3VLConfig,
)

from pruning import FAMILIES
from pruning.multimodal.configuration import text_config_of
from tests.byte_llama import byte_tokenizer

Values = dict[str, Any]

TEXT: Values = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": None,
}
VISION: Values = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
QWEN_VISION: Values = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
}
QWEN_IDS: Values = {
    "image_token_id": 290,
    "video_token_id": 291,
    "vision_start_token_id": 292,
    "vision_end_token_id": 293,
}
M_ROPE: Values = {"rope_type": "default", "rope_theta": 700.0, "mrope_section": [1, 1, 2]}
LOCAL: Values = {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "gemma3": lambda: Gemma3Config(
        text_config=TEXT | LOCAL,
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=290,
        boi_token_index=291,
        eoi_token_index=292,
    ),
    "mistral3": lambda: Mistral3Config(
        text_config=TEXT | {"model_type": "mistral", "sliding_window": None},
        vision_config=VISION | {"model_type": "pixtral", "head_dim": 8},
        image_token_index=290,
        spatial_merge_size=1,
        tie_word_embeddings=False,
    ),
    "qwen2_5_vl": lambda: Qwen2_5_VLConfig(
        text_config={n: v for n, v in TEXT.items() if n != "head_dim"}
        | {"rope_parameters": M_ROPE},
        vision_config=QWEN_VISION | {"fullatt_block_indexes": [0], "window_size": 16},
        **QWEN_IDS,
    ),
    "qwen3_vl": lambda: Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": M_ROPE | {"mrope_interleaved": True}},
        vision_config=QWEN_VISION
        | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        tie_word_embeddings=True,
        **QWEN_IDS,
    ),
    "qwen3_5": lambda: Qwen3_5Config(
        text_config=TEXT
        | {
            "rope_parameters": M_ROPE | {"partial_rotary_factor": 1.0},
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        vision_config=QWEN_VISION | {"num_position_embeddings": 16},
        **QWEN_IDS,
    ),
    "llama4": lambda: Llama4Config(
        text_config=TEXT
        | {
            "intermediate_size_mlp": 40,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 8,
        },
        vision_config=VISION
        | {"intermediate_size": 64, "vision_output_dim": 16}
        | {"projector_input_dim": 16, "projector_output_dim": 16},
        image_token_index=290,
        boi_token_index=291,
        eoi_token_index=292,
    ),
    "gemma4": lambda: Gemma4Config(
        text_config=TEXT
        | LOCAL
        | {
            "pad_token_id": 0,
            "vocab_size_per_layer_input": 300,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 1,
            "global_head_dim": 16,
        },
        vision_config=VISION | {"head_dim": 8},
        audio_config=None,
        image_token_id=290,
    ),
    "internvl": lambda: InternVLConfig(
        text_config={n: v for n, v in TEXT.items() if n != "head_dim"} | {"model_type": "qwen2"},
        vision_config=VISION | {"image_size": [8, 8], "patch_size": [4, 4]},
        image_token_id=290,
        tie_word_embeddings=False,
    ),
    "llava": lambda: LlavaConfig(
        text_config=TEXT | {"model_type": "llama"},
        vision_config=VISION | {"model_type": "clip_vision_model"},
        image_token_index=290,
    ),
}
"""Multimodal type -> its configuration."""
HAVE_ROWS = [v for v in CONFIGS if text_config_of(CONFIGS[v]()).model_type in FAMILIES]
"""Those whose text models can be cut."""


def build(variant: str) -> Any:
    """A model of that type whose every tensor is random, in evaluation mode."""
    model = AutoModelForMultimodalLM.from_config(CONFIGS[variant]())
    generator = torch.Generator().manual_seed(len(variant))
    with torch.no_grad():
        for weight in model.parameters():
            size = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=generator) * size)
    return model.eval()


def write_multimodal(directory: Path, variant: str) -> Path:
    """Write it to the new `directory`, with tokenizer and processor settings."""
    build(variant).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text('{"image_processor_type": "none"}')
    return directory
