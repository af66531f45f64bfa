"""Tokens that a teacher answers while a study is prepared, by its settings."""

from search.config.study import SearchConfig


def target_tokens(config: SearchConfig, *, stored: bool, held_out: int, available: int) -> int:
    """Read for the targets of the `held_out` tokens, and of training where they are `stored`."""
    longest = max(config.full_tokens, config.scratch_tokens or 0)
    return held_out + (min(longest, available) if stored else 0)
