"""Copies of per-layer students in forms that other software reads."""

from pruning.exports.decilm import DECILM_TYPE, write_decilm
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

__all__ = [
    "DECILM",
    "DECILM_TYPE",
    "FORMS",
    "PADDED",
    "check_copies",
    "check_forms",
    "check_type",
    "copied_parameters",
    "copy_config",
    "load_copy",
    "write_decilm",
]
