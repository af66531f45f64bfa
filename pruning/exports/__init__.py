"""Copies of per-layer students in forms that other software reads."""

from pruning.exports.decilm import DECILM_TYPE, decilm_layers, why_no_decilm, write_decilm
from pruning.exports.forms import (
    DECILM,
    FORMS,
    PADDED,
    check_copies,
    check_forms,
    check_type,
    copied_parameters,
    copy_config,
    load_copy,
)
from pruning.exports.padded import padded_layers, padded_shape, write_padded
from pruning.exports.padding import PaddedLayer, stock_config

__all__ = [
    "DECILM",
    "DECILM_TYPE",
    "FORMS",
    "PADDED",
    "PaddedLayer",
    "check_copies",
    "check_forms",
    "check_type",
    "copied_parameters",
    "copy_config",
    "decilm_layers",
    "load_copy",
    "padded_layers",
    "padded_shape",
    "stock_config",
    "why_no_decilm",
    "write_decilm",
    "write_padded",
]
