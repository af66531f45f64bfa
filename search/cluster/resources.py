"""Resources: the machines of a study, and the share of them that each run gets."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or this one."""

    cpus: int
    """CPUs that runs may take."""
    gpus: int
    """Its GPUs."""
    memory: float = math.inf
    """Bytes that runs may take."""

    def room(self, cpus: int, gpus: float) -> int:
        """How many runs of so many CPUs and GPUs it holds; a GPU fraction is of one GPU."""
        by_cpus = self.cpus // cpus
        if not gpus:
            return by_cpus
        by_gpus = self.gpus * int(1 / gpus + 1e-9) if gpus <= 1 else int(self.gpus // gpus)
        return min(by_cpus, by_gpus)


@dataclass(frozen=True)
class Resources:
    """How many runs go at once, and what each of them gets."""

    concurrent: int
    """Runs at once."""
    cpus: int
    """CPUs of each process, which are its threads."""
    gpus: float
    """GPUs of each process; a fraction is of one GPU."""
    nodes: tuple[Node, ...] = field(default=(), compare=False)
    """Where they are."""
    memory: int = 0
    """Bytes that each process reserves of its node, so that Ray puts no more on one than fit; 0:
    none."""
    workers: int = 1
    """Processes of each, on one node; CPUs, GPUs and memory are of a process."""

    @property
    def all_cpus(self) -> int:
        """CPUs of all runs together."""
        return self.concurrent * self.workers * self.cpus

    def room(self, node: Node) -> int:
        """How many runs a node holds, but for memory."""
        return node.room(self.workers * self.cpus, self.workers * self.gpus)
