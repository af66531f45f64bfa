"""Table of families: one row per Hugging Face model type; nothing else that cuts asks for it.

How to add a row is told in docs/pruning.md.
"""

from dataclasses import dataclass

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
from pruning.families.table.shared_experts import SHARED_EXPERTS

ROWS = (
    *LLAMA_LIKE,
    *GEMMAS,
    *POST_NORMED,
    *LAYER_NORMS,
    *PARALLEL,
    *GPT_LIKE,
    *MIXTURES,
    *SHARED_EXPERTS,
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


@dataclass(frozen=True)
class HeadSizes:
    """Channels of an attention head."""

    keys: int
    """Of its query and its key."""
    values: int
    """Of its value."""
    cached: int = 0
    """Values that the cache has per token for all heads together, where they share a latent; 0
    where each KV head caches its keys and values."""


def head_sizes(config: PretrainedConfig) -> HeadSizes:
    """Channels of the attention heads of a model."""
    if family_of(config).latent_attention:
        rotary = config.qk_rope_head_dim
        return HeadSizes(
            keys=config.qk_nope_head_dim + rotary,
            values=config.v_head_dim,
            cached=config.kv_lora_rank + rotary,
        )
    return HeadSizes(head_dim_of(config), head_dim_of(config))


def expert_groups(config: PretrainedConfig) -> int:
    """Groups that the experts of a model are routed in; 1 where there are none."""
    field = family_of(config).router_groups
    return int((field and getattr(config, field)) or 1)


def experts_per_token(config: PretrainedConfig) -> int:
    """Experts that a token of a mixture is sent to; 0 for a dense model."""
    given = getattr(config, "num_experts_per_tok", 0) or 0
    return int(max(given) if isinstance(given, list) else given)
