"""Tokens and passes that prepare a study, by its settings."""

from collections.abc import Sequence

from search.config.study import SearchConfig
from search.space.variants import LayerVariants


def target_tokens(config: SearchConfig, *, stored: bool, held_out: int, available: int) -> int:
    """Read for the targets of the `held_out` tokens, and of training where they are `stored`."""
    longest = max(config.full_tokens, config.scratch_tokens or 0)
    return held_out + (min(longest, available) if stored else 0)


def block_passes(variants: Sequence[LayerVariants]) -> float:
    """Passes of a whole model that score every other block of its layers once: of each only the
    layers from its own on are run again."""
    layers = len(variants)
    others = [len(one.attention) + len(one.ffn) - 2 for one in variants]
    return sum(count * (layers - layer) / layers for layer, count in enumerate(others))
