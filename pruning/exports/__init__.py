"""Copies of students in forms that other software reads."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from pruning.exports.decilm import DECILM_TYPE, write_decilm
    from pruning.exports.forms import (
        FORMS,
        check_copies,
        check_type,
        copied_parameters,
        copy_config,
        load_copy,
    )
    from pruning.exports.names import DECILM, EXPORTS, MULTIMODAL, PADDED, check_forms

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

__getattr__ = lazy_exports(__name__)
