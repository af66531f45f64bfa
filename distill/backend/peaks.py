"""Most memory that this process has taken."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

OWN = Path("/proc/self")
RESET = "5"
"""What clear_refs of Linux takes to forget the most that was resident."""


def forget_peak() -> None:
    """Count from what is there now, where that can be done: on Linux, and of GPUs."""
    with contextlib.suppress(OSError):
        (OWN / "clear_refs").write_text(RESET)
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def peak_bytes(device: torch.device) -> int:
    """Most bytes since then: of a GPU what torch allocated there, else what was resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", (OWN / "status").read_text())
        if found:
            return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
