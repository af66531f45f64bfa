"""Table of families: one row per Hugging Face model type."""

from pruning.families.table.lookup import (
    FAMILIES,
    HeadSizes,
    expert_groups,
    experts_per_token,
    family_of,
    head_dim_of,
    head_sizes,
)

__all__ = [
    "FAMILIES",
    "HeadSizes",
    "expert_groups",
    "experts_per_token",
    "family_of",
    "head_dim_of",
    "head_sizes",
]
