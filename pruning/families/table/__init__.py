"""Table of families: one row per Hugging Face model type."""

from pruning.families.table.lookup import (
    FAMILIES,
    HeadSizes,
    OtherTypes,
    expert_groups,
    experts_per_token,
    family_of,
    head_dim_of,
    head_sizes,
    layer_heads,
    value_of,
)

__all__ = [
    "FAMILIES",
    "HeadSizes",
    "OtherTypes",
    "expert_groups",
    "experts_per_token",
    "family_of",
    "head_dim_of",
    "head_sizes",
    "layer_heads",
    "value_of",
]
