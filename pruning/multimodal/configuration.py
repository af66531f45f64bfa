"""Configurations of multimodal models: that of the text model inside, alone and put back."""

from collections.abc import Mapping
from typing import Any

from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    PretrainedConfig,
)

from common.errors import PruningError

TEXT_CONFIG = "text_config"
SAME_FOR_TEXT = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Types of text models without a causal language model of their own -> the type that computes the
same where there is only text. Each is proven before it is used (`pruning.multimodal.proof`)."""
POSITIONS_OF_PICTURES = ("mrope_section", "mrope_interleaved")
"""Rotary parameters that place pictures; all three positions of a token of text are the same."""
OF_THE_FOLDER = (
    "_name_or_path",
    "architectures",
    "dtype",
    "model_type",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
)
"""Keys that a text model alone has otherwise than as a part of a whole."""


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether a model of this configuration is of text and something else."""
    try:
        return config.get_text_config() is not config
    except ValueError:  # there are several texts in it
        return True


def multimodal_class(config: PretrainedConfig) -> Any:
    """The stock class of a multimodal model. Raises PruningError where transformers has none that
    writes text, or where its text model lies deeper than `text_config`."""
    kind: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    if kind is None or getattr(config, TEXT_CONFIG, None) is not config.get_text_config():
        raise PruningError(
            f"transformers has no multimodal class for {config.model_type} whose text model is a "
            "causal language model of its text_config"
        )
    return kind


def text_config_of(whole: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the text model of a multimodal one as a stock causal language model.

    Raises PruningError where transformers has no such model.
    """
    text: Any = getattr(whole, TEXT_CONFIG)
    values = text.to_dict()
    kind = SAME_FOR_TEXT.get(text.model_type, text.model_type)
    if kind == text.model_type:
        config: Any = type(text).from_dict(values)
    else:
        rope = values.get("rope_parameters") or {}
        kept = {name: value for name, value in rope.items() if name not in POSITIONS_OF_PICTURES}
        values |= {"rope_parameters": kept, "model_type": kind}
        config = CONFIG_MAPPING[kind].from_dict(values)
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise PruningError(
            f"the text model of {whole.model_type} is a {text.model_type}, which transformers has "
            "no causal language model of"
        )
    config.architectures = [model_class.__name__]
    stock: PretrainedConfig = config
    return stock


def changes(before: PretrainedConfig, after: PretrainedConfig) -> dict[str, Any]:
    """Values that `after` has otherwise than `before`, another configuration of its type."""
    known = before.to_dict()
    return {
        name: value
        for name, value in after.to_dict().items()
        if name not in OF_THE_FOLDER and (name not in known or known[name] != value)
    }


def with_text(whole: PretrainedConfig, changed: Mapping[str, Any]) -> PretrainedConfig:
    """A multimodal configuration whose text model has these `changed` values, also where the whole
    says them a second time."""
    values = whole.to_dict()
    text = values[TEXT_CONFIG]
    twice = {n: v for n, v in changed.items() if n in text and values.get(n) == text[n]}
    values |= {n: v for n, v in twice.items() if n in values and n not in OF_THE_FOLDER}
    values[TEXT_CONFIG] = text | dict(changed)
    changed_whole: PretrainedConfig = type(whole).from_dict(values)
    return changed_whole
