"""Tensors and processes: precision, decoder layers, loading, several workers."""

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
