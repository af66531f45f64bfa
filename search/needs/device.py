"""The device that is planned for: this machine's, or one that the user describes."""

from dataclasses import dataclass

import torch

from common.machine import Machine
from common.progress import counted
from distill import resolve_precision
from search.config.sections import PlannedMachine
from workspace.settings import AUTO, CUDA, resolve_device

GB = 1e9
MOST_CPUS = 10**6
"""Of a machine of which only the GPUs are described: as many as runs want."""


@dataclass(frozen=True)
class PlannedDevice:
    """What runs may take of a machine."""

    type: str
    """cpu or cuda."""
    here: bool
    """Whether it is this machine, as it is now."""
    machine: Machine
    """CPUs and memory."""
    count: int
    """Its GPUs; 0 without."""
    gpu_memory: float
    """Bytes that are free on each; 0 without any."""
    flops: float | None
    """Floating-point operations per second that a run comes to; None where that is not known."""

    @classmethod
    def of(cls, device: str, planned: PlannedMachine) -> "PlannedDevice":
        """The device called `device` of the machine that is planned for.

        Raises SearchError where this machine is meant and has none of it.
        """
        here, stated = Machine.here(), planned.memory_gb
        flops = None if planned.tflops is None else planned.tflops * 1e12
        cpus = planned.cpus or here.cpus
        if stated is None:
            kind = resolve_device(device).type
            count = torch.cuda.device_count() if kind == CUDA else 0
            free = min((torch.cuda.mem_get_info(n)[0] for n in range(count)), default=0)
            machine = Machine(cpus, cpus, here.memory, here.whole_memory)
            return cls(kind, planned.cpus is None, machine, count, free, flops)
        kind = resolve_device(device).type if device == AUTO else device
        if kind == CUDA:
            cpus = planned.cpus or MOST_CPUS
            unknown = Machine(cpus, cpus, 0, 0)
            return cls(kind, False, unknown, planned.devices, stated * GB, flops)
        memory = int(stated * GB)
        return cls(kind, False, Machine(cpus, cpus, memory, memory), 0, 0.0, flops)

    @property
    def on_gpu(self) -> bool:
        """Whether runs are on a GPU."""
        return self.type == CUDA

    @property
    def memory(self) -> float:
        """Bytes that are free on one device."""
        return self.gpu_memory if self.on_gpu else self.machine.memory

    def precision(self, wanted: str) -> str:
        """What `resolve_precision` gives for it; of a GPU that is not here, bf16 for auto."""
        if self.on_gpu and not torch.cuda.is_available():
            return "bf16" if wanted == AUTO else wanted
        return resolve_precision(wanted, torch.device(self.type))

    def __str__(self) -> str:
        where = "this machine" if self.here else "another machine, as --plan_for says"
        if self.on_gpu:
            gpus = counted(self.count, "GPU")
            each = " each" if self.count > 1 else ""
            return f"{gpus} with {self.memory / GB:,.1f} GB free{each} ({where})"
        return f"{self.machine.cpus} CPUs with {self.memory / GB:,.1f} GB free ({where})"
