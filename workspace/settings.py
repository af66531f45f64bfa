"""Settings that several commands have, with what may not be and what is meant by default."""

import torch

from search.errors import SearchError, require

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
DEVICES = (AUTO, CPU, CUDA)
TEACHER_PRECISIONS = ("file", "fp32")
MOST_REPORTS = 100_000
"""Evaluations of one run."""
SHORTEST_BLOCK, LONGEST_BLOCK = 8, 1024
"""Tokens per sequence: the fewest that may be asked for, and the most where none are asked for."""


def resolve_device(name: str) -> torch.device:
    """The device that --device names. Raises SearchError where this machine has none of it."""
    if name == CUDA and not torch.cuda.is_available():
        raise SearchError("--device is cuda, but torch finds no CUDA device; use cpu")
    if name == AUTO:
        name = CUDA if torch.cuda.is_available() else CPU
    return torch.device(name)


def check_device(name: str) -> None:
    """Raises SearchError for a --device that is never one."""
    require(name in DEVICES, f"--device is {name!r}; it must be one of {', '.join(DEVICES)}")


def check_disk_settings(targets_gb: float, checkpoint_seconds: float) -> None:
    """Raises SearchError for --targets_gb and --checkpoint_seconds that cannot be."""
    require(targets_gb > 0, f"--targets_gb is {targets_gb}; it must be above zero")
    require(
        checkpoint_seconds >= 0,
        f"--checkpoint_seconds is {checkpoint_seconds}; it must not be negative",
    )


def check_teacher_precision(name: str) -> None:
    """Raises SearchError for a --teacher_precision that there is not."""
    require(
        name in TEACHER_PRECISIONS,
        f"--teacher_precision is {name!r}; it must be one of {', '.join(TEACHER_PRECISIONS)}",
    )
