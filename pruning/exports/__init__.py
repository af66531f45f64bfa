"""Copies of students in forms that other software reads."""

from pruning.exports.decilm import DECILM_TYPE, write_decilm
from pruning.exports.forms import (
    DECILM,
    EXPORTS,
    FORMS,
    MULTIMODAL,
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
    "EXPORTS",
    "FORMS",
    "MULTIMODAL",
    "PADDED",
    "check_copies",
    "check_forms",
    "check_type",
    "copied_parameters",
    "copy_config",
    "load_copy",
    "write_decilm",
]
