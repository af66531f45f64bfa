"""Tensors and processes: precision, decoder layers, loading, several workers."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.backend.layers import feeding, recording
    from distill.backend.loading import load
    from distill.backend.parallel import ALONE, World
    from distill.backend.peaks import process_memory
    from distill.backend.precision import autocast

__all__ = [
    "ALONE",
    "World",
    "autocast",
    "feeding",
    "load",
    "process_memory",
    "recording",
]

__getattr__ = lazy_exports(__name__)
