"""Tokens that a teacher reads while a study is prepared, by its settings."""

from pruning.importance import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from search.config.study import SearchConfig
from workspace.sorting import ENERGY_SEQUENCES


def importance_tokens(config: SearchConfig, *, layers: int, block: int, available: int) -> int:
    """Read to score widths, to measure mean squares, and with each of the teacher's `layers` left
    out.

    Args:
        config: Settings of the study.
        layers: Of the teacher.
        block: Tokens of a sequence.
        available: Tokens of the training split.
    """
    sequences: int = min(config.calibration, available // block)
    passes = sequences + min(sequences, ENERGY_SEQUENCES)
    if config.importance.layers in LEFT_OUT_SCORES:
        passes += min(sequences, LEFT_OUT_SEQUENCES) * layers
    return passes * block


def target_tokens(config: SearchConfig, *, stored: bool, held_out: int, available: int) -> int:
    """Read for the targets of the `held_out` tokens, and of training where they are `stored`."""
    longest = max(config.full_tokens, config.scratch_tokens or 0)
    return held_out + (min(longest, available) if stored else 0)
