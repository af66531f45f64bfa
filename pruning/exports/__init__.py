"""Copies of per-layer students in forms that other software reads."""

from pruning.exports.decilm import why_no_decilm, write_decilm
from pruning.exports.padded import write_padded

__all__ = ["why_no_decilm", "write_decilm", "write_padded"]
