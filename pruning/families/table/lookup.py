"""Table of families: one row per Hugging Face model type; nothing else that cuts asks for it.

How to add a row is told in docs/pruning.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.block import EXPERTS
from pruning.families.spec import Family
from pruning.families.table.gemma import GEMMAS
from pruning.families.table.gemma4 import GEMMA4
from pruning.families.table.gpt import GPT_LIKE
from pruning.families.table.hybrids import HYBRIDS
from pruning.families.table.layer_norms import LAYER_NORMS
from pruning.families.table.llama_like import LLAMA_LIKE
from pruning.families.table.mixtures import MIXTURES
from pruning.families.table.parallel import PARALLEL
from pruning.families.table.post_norms import POST_NORMED
from pruning.families.table.shared_experts import SHARED_EXPERTS
from pruning.families.words import LayerHeads

ROWS = (
    *LLAMA_LIKE,
    *GEMMAS,
    *GEMMA4,
    *POST_NORMED,
    *LAYER_NORMS,
    *PARALLEL,
    *GPT_LIKE,
    *MIXTURES,
    *SHARED_EXPERTS,
    *HYBRIDS,
)
FAMILIES: dict[str, Family] = {row.model_type: row for row in ROWS}


def _inferred(config: PretrainedConfig) -> Family:
    family: Family = import_module("pruning.inference").inferred_family(config)
    return family


class OtherTypes:
    """How a row is found for a type that has none in the table.

    What infers rows stands above the table, since it cuts tiny models: it is imported by its name.
    """

    infer: Callable[[PretrainedConfig], Family] = staticmethod(_inferred)
    """Gives the row of a type, or raises PruningError with what stood in the way."""


def family_of(config: PretrainedConfig) -> Family:
    """The row for a model's configuration: of the table, or inferred and proven.

    Raises PruningError for a type of which none could be proven, and for a quantised model.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        family = OtherTypes.infer(config)
    if getattr(config, "quantization_config", None):
        raise PruningError(
            "the model is quantised; dequantise it and save it in bf16 or fp32 first "
            "(model.dequantize() and save_pretrained in transformers)"
        )
    return family


def value_of(config: PretrainedConfig, name: str) -> Any:
    """A value of a configuration; of one that some layers have otherwise, that of the others, which
    transformers does not give by its name. None where it has no such value."""
    if name in (getattr(config, "per_layer_attributes", None) or ()):
        return vars(config)[name]
    return getattr(config, name, None)


def head_dim_of(config: PretrainedConfig) -> int:
    """Channels per head, also where the configuration leaves it to be derived; see `layer_heads`
    where layers differ in it."""
    return int(value_of(config, "head_dim") or config.hidden_size // config.num_attention_heads)


def layer_heads(config: PretrainedConfig, layer: int) -> LayerHeads:
    """The attention heads of a layer."""
    own = family_of(config).layer_heads
    return LayerHeads(head_dim_of(config)) if own is None else own(config, layer)


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
    """Experts that a token of a mixture is sent to; 0 for a model without, whose configuration may
    have a number all the same."""
    family = FAMILIES.get(config.model_type)
    name = "num_experts_per_tok" if family is None else family.per_token
    given = getattr(config, name, 0) or 0
    if given and family is not None:
        layers = range(config.num_hidden_layers)
        given = given if any(family.has(EXPERTS, config, layer) for layer in layers) else 0
    return int(max(given) if isinstance(given, list) else given)
