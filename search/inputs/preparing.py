"""Tokens that a teacher reads while a study is prepared, by its settings."""

from pruning import PruneSettings
from pruning.importance import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from search.config.study import SearchConfig
from workspace.sorting import ENERGY_SEQUENCES


def importance_tokens(settings: PruneSettings, sequences: int, *, layers: int, block: int) -> int:
    """Read to score widths, to measure mean squares, and with each layer left out.

    Args:
        settings: The scores.
        sequences: Of calibration.
        layers: Of the teacher.
        block: Tokens of a sequence.
    """
    passes = sequences + min(sequences, ENERGY_SEQUENCES)
    if settings.layer_score in LEFT_OUT_SCORES:
        passes += min(sequences, LEFT_OUT_SEQUENCES) * layers
    return passes * block


def target_tokens(config: SearchConfig, *, stored: bool, held_out: int, available: int) -> int:
    """Read for the targets of the `held_out` tokens, and of training where they are `stored`."""
    longest = max(config.full_tokens, config.scratch_tokens or 0)
    return held_out + (min(longest, available) if stored else 0)
