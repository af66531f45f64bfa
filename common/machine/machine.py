"""CPUs and memory of this machine that a process may use."""

import logging
import os
from dataclasses import dataclass
from math import floor

import psutil
import torch

from common.machine.cgroups import Cgroups

LOGGER = logging.getLogger(__name__)
THREADS_GIVEN = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Machine:
    """CPUs and memory as they are for this process now."""

    cpus: int
    """Whole CPUs that it may use: those it is let run on, and no more than a container's quota."""
    let: int
    """CPUs that it is let run on (affinity, and from Python 3.13 on PYTHON_CPU_COUNT)."""
    memory: int
    """Bytes that are free on the machine, or that a container leaves, whichever is less."""
    whole_memory: int
    """Bytes of the machine, or that a container may have."""

    @classmethod
    def here(cls, groups: Cgroups | None = None) -> "Machine":
        """This one, by the control groups of this process where no others are given."""
        groups = groups or Cgroups.of()
        let, quota = _let(), groups.cpu_quota
        # Rounded down: threads beyond the quota would make all of them wait.
        cpus = let if quota is None else min(let, max(1, floor(quota)))
        system = psutil.virtual_memory()
        left, limit = groups.memory_left, groups.memory_limit
        return cls(
            cpus,
            let,
            memory=system.available if left is None else min(system.available, left),
            whole_memory=system.total if limit is None else min(system.total, limit),
        )

    @property
    def bounded(self) -> bool:
        """Whether a quota leaves fewer CPUs than the process is let run on."""
        return self.cpus < self.let

    def __str__(self) -> str:
        if self.bounded:
            return f"{self.cpus} of {self.let} CPUs: the container's quota"
        return f"{self.cpus} CPUs"

    def keep_to_quota(self) -> None:
        """Have this process use no more threads than a quota leaves it CPUs, and say so.

        Torch and tokenizers start one for each CPU that they see, and see no quota. What the user
        set stays.
        """
        if not self.bounded:
            return
        LOGGER.info(str(self))
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.cpus))
        if THREADS_GIVEN not in os.environ:
            torch.set_num_threads(min(self.cpus, torch.get_num_threads()))


def _let() -> int:
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
