"""Copies of per-layer students in forms that other software reads."""

from pruning.exports.decilm import decilm_layers, why_no_decilm, write_decilm
from pruning.exports.padded import padded_layers, padded_shape, write_padded
from pruning.exports.padding import PaddedLayer, stock_config

__all__ = [
    "PaddedLayer",
    "decilm_layers",
    "padded_layers",
    "padded_shape",
    "stock_config",
    "why_no_decilm",
    "write_decilm",
    "write_padded",
]
