"""Importance of channels, heads, neurons, experts and layers, and the order it gives."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from pruning.importance.calibration import input_device
    from pruning.importance.depth import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
    from pruning.importance.experts import Routing, measure_routing
    from pruning.importance.measure import check_scoring, importance_of, layer_sums, width_sums
    from pruning.importance.moments import Moments, measure_moments, moment_sums, moments_of
    from pruning.importance.ordering import LayerMix
    from pruning.importance.reductions import Sums, added
    from pruning.importance.scores import (
        DEFAULT_EXPERT_SCORE,
        DEFAULT_LAYER_SCORE,
        DEFAULT_SCORE,
        DEFAULT_SSM_SCORE,
        EXPERT_SCORES,
        LAYER_SCORES,
        OUTPUT_NORM,
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
    "OUTPUT_NORM",
    "SCORES",
    "LayerMix",
    "Moments",
    "Routing",
    "Sums",
    "added",
    "check_expert_score",
    "check_layer_score",
    "check_scoring",
    "importance_of",
    "input_device",
    "layer_sums",
    "measure_moments",
    "measure_routing",
    "moment_sums",
    "moments_of",
    "score_named",
    "width_sums",
]

__getattr__ = lazy_exports(__name__)
