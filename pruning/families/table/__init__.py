"""Table of families: one row per Hugging Face model type."""

from pruning.families.table.lookup import FAMILIES, experts_per_token, family_of, head_dim_of

__all__ = ["FAMILIES", "experts_per_token", "family_of", "head_dim_of"]
