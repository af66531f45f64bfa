"""Table of families: one row per Hugging Face model type; nothing else that cuts asks for it.

How to add a row is told in docs/pruning.md.
"""

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.spec import Family
from pruning.families.table.gemma import GEMMAS
from pruning.families.table.gpt import GPT_LIKE
from pruning.families.table.hybrids import HYBRIDS
from pruning.families.table.layer_norms import LAYER_NORMS
from pruning.families.table.llama_like import LLAMA_LIKE
from pruning.families.table.mixtures import MIXTURES
from pruning.families.table.parallel import PARALLEL
from pruning.families.table.post_norms import POST_NORMED

ROWS = (
    *LLAMA_LIKE,
    *GEMMAS,
    *POST_NORMED,
    *LAYER_NORMS,
    *PARALLEL,
    *GPT_LIKE,
    *MIXTURES,
    *HYBRIDS,
)
FAMILIES: dict[str, Family] = {row.model_type: row for row in ROWS}


def family_of(config: PretrainedConfig) -> Family:
    """The row for a model's configuration. Raises PruningError for a type without a row."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise PruningError(
            f"models of type {config.model_type!r} are not supported; supported types: {known}. A "
            "new one is a row of the table in pruning/families/table (docs/pruning.md shows how)"
        )
    if getattr(config, "quantization_config", None):
        raise PruningError(
            "the model is quantised; dequantise it and save it in bf16 or fp32 first "
            "(model.dequantize() and save_pretrained in transformers)"
        )
    return family


def head_dim_of(config: PretrainedConfig) -> int:
    """Channels per head, also where the configuration leaves it to be derived."""
    heads = config.num_attention_heads
    return int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def experts_per_token(config: PretrainedConfig) -> int:
    """Experts that a token of a mixture is sent to; 0 for a dense model."""
    return int(getattr(config, "num_experts_per_tok", 0) or 0)
