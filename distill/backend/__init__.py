"""Tensors and processes: precision, decoder layers, loading, several workers."""

from distill.backend.loading import load
from distill.backend.parallel import ALONE, World

__all__ = [
    "ALONE",
    "World",
    "load",
]
