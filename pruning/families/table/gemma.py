"""Rows of Gemma and its relatives, whose embeddings are multiplied by sqrt(hidden size)."""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Architecture
from pruning.families.spec import Family
from pruning.families.table.common import (
    ATTENTION,
    BIASED_ATTENTION,
    HEAD_NORMS,
    HEADS_DIVIDE_HIDDEN,
    PRE_NORMS,
    llama_like,
)
from pruning.families.words import Axes, OlderNames, Rescale


def _gemma_like(model_type: str, **row: Any) -> Family:
    """Norms that multiply by 1 + w; embeddings times sqrt(hidden size)."""
    gemma: dict[str, Any] = {
        "optional_tensors": BIASED_ATTENTION,
        "norm_offset": 1.0,
        "rescale": _embedding,
    }
    return llama_like(model_type, **(gemma | row))


def _four_norms(model_type: str, head_norms: Mapping[str, Axes], **row: Any) -> Family:
    """Norms before and after attention and FFN."""
    return _gemma_like(
        model_type,
        layer_tensors={
            **PRE_NORMS,
            "pre_feedforward_layernorm.weight": ("hidden",),
            "post_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
            **head_norms,
        },
        attention_norms=("input_layernorm", "post_attention_layernorm"),
        constraints=(HEADS_DIVIDE_HIDDEN,),
        **row,
    )


def _embedding(config: PretrainedConfig, student: Architecture) -> dict[str, Rescale]:
    """The student multiplies its embedding by sqrt(h') where the teacher does by sqrt(h).

    Where the head is the embedding, the final norm takes the factor back.
    """
    factor = (config.hidden_size / student.hidden) ** 0.5
    rescale = {"model.embed_tokens.weight": Rescale(factor)}
    if config.tie_word_embeddings:
        rescale["model.norm.weight"] = Rescale(1 / factor, offset=1.0)
    return rescale


GEMMAS = (
    _gemma_like("gemma"),
    _four_norms("gemma2", {}, windows=True),
    _four_norms(
        "gemma3_text",
        HEAD_NORMS,
        periods={
            "sliding_window_pattern": ("layer_types", "full_attention"),
            "_sliding_window_pattern": ("layer_types", "full_attention"),
        },
        older_names=OlderNames(local_rope_theta="rope_local_base_freq"),
    ),
    _gemma_like(
        "vaultgemma",
        layer_tensors={
            "input_layernorm.weight": ("hidden",),
            "pre_feedforward_layernorm.weight": ("hidden",),
            **ATTENTION,
        },
        constraints=(HEADS_DIVIDE_HIDDEN,),
        windows=True,
    ),
)
