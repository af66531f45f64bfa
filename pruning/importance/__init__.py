"""Importance of channels, heads, neurons, experts and layers, and the order it gives."""

from pruning.importance.calibration import input_device
from pruning.importance.depth import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from pruning.importance.moments import measure_moments
from pruning.importance.ordering import LayerMix
from pruning.importance.scores import (
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORE,
    DEFAULT_SSM_SCORE,
    LAYER_SCORES,
    SCORES,
    check_layer_score,
    score_named,
)

__all__ = [
    "DEFAULT_LAYER_SCORE",
    "DEFAULT_SCORE",
    "DEFAULT_SSM_SCORE",
    "LAYER_SCORES",
    "LEFT_OUT_SCORES",
    "LEFT_OUT_SEQUENCES",
    "SCORES",
    "LayerMix",
    "check_layer_score",
    "input_device",
    "measure_moments",
    "score_named",
]
