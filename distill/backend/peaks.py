"""Most memory that a process takes for a piece of work."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

OWN = Path("/proc/self")
RESET = "5"
"""What clear_refs of Linux takes to forget the most that was resident."""


class PeakMemory:
    """Most memory that this process has from here on."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            (OWN / "clear_refs").write_text(RESET)
        if torch.cuda.is_initialized():
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
        self._mapped_before = process_memory().get("RssFile", 0)

    def bytes_on(self, device: torch.device) -> int:
        """Bytes of a GPU, as torch allocated them there; else what was resident.

        Of what is resident, pages of files that were mapped since then do not count, such as those
        of targets: the system takes them back where it wants the memory. Outside Linux they do, and
        so does what the process took before.
        """
        if device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(device))
        now = process_memory()
        if "VmHWM" in now:
            return now["VmHWM"] - max(0, now.get("RssFile", 0) - self._mapped_before)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def process_memory(process: Path = OWN) -> dict[str, int]:
    """Bytes of a process, by the names in its status file; {} where there is no such file."""
    try:
        text = (process / "status").read_text()
    except OSError:
        return {}
    return {name: int(size) * 1024 for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}
