"""Settings that several commands share, with their checks and defaults."""

from typing import TYPE_CHECKING

from common.errors import SearchError

if TYPE_CHECKING:
    import torch

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
DEVICES = (AUTO, CPU, CUDA)
TEACHER_PRECISIONS = ("file", "fp32")
MOST_REPORTS = 100_000
"""Evaluations of one run."""
CALIBRATION_SEQUENCES = 256
"""Sequences that importance is measured on where nothing else is asked for: more of them change
students no more than another sample of the same text does (docs/pruning.md)."""
SHORTEST_BLOCK, LONGEST_BLOCK = 8, 1024
"""Tokens per sequence: the fewest that may be asked for, and the most where none are asked for."""


def resolve_device(name: str) -> "torch.device":
    """The device that --device names. Raises SearchError where this machine has none of it."""
    import torch

    if name == CUDA and not torch.cuda.is_available():
        raise SearchError("--device is cuda, but torch finds no CUDA device; use cpu")
    if name == AUTO:
        name = CUDA if torch.cuda.is_available() else CPU
    return torch.device(name)
