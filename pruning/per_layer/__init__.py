"""Students whose layers differ: their layers, their classes, and loading them."""

from pruning.per_layer.classes import per_layer_config, register
from pruning.per_layer.layers import WINDOWED, build_layer
from pruning.per_layer.loading import load_student

__all__ = ["WINDOWED", "build_layer", "load_student", "per_layer_config", "register"]
