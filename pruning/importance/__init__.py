"""Importance of channels, heads, neurons, experts and layers, and the order it gives."""

from pruning.importance.calibration import input_device
from pruning.importance.depth import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from pruning.importance.experts import Routing, measure_routing
from pruning.importance.moments import measure_moments
from pruning.importance.ordering import LayerMix
from pruning.importance.scores import (
    DEFAULT_EXPERT_SCORE,
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORE,
    DEFAULT_SSM_SCORE,
    EXPERT_SCORES,
    LAYER_SCORES,
    SCORES,
    check_expert_score,
    check_layer_score,
    score_named,
)

__all__ = [
    "DEFAULT_EXPERT_SCORE",
    "DEFAULT_LAYER_SCORE",
    "DEFAULT_SCORE",
    "DEFAULT_SSM_SCORE",
    "EXPERT_SCORES",
    "LAYER_SCORES",
    "LEFT_OUT_SCORES",
    "LEFT_OUT_SEQUENCES",
    "SCORES",
    "LayerMix",
    "Routing",
    "check_expert_score",
    "check_layer_score",
    "input_device",
    "measure_moments",
    "measure_routing",
    "score_named",
]
