"""Number of runs that memory holds at once, by an estimate, and one line that says so."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from common.machine import Machine
from pruning import AXES, Architecture
from search.cluster.resources import Node, Resources
from search.cluster.trial_memory import GB, TrialMemory
from search.config.sections import ResourceConfig
from search.space.space import Space

RAY = 0.7 * GB
"""What Ray's own processes (0.47 GB measured), and this one until the trials, take besides."""
DASHBOARDS = 0.9 * GB
"""What the dashboards take; 0.8 GB of Ray's processes measured."""
RAY_KILLS_ABOVE = 0.95
"""Share of a machine's memory in use above which Ray kills workers."""


@dataclass(frozen=True)
class Need:
    """Memory that a run takes, of the student that takes most."""

    memory: float
    """Bytes of the machine's memory."""
    gpu: float
    """Bytes of a GPU's memory; 0 without one."""
    what: str
    """What the figures rest on, in words."""
    largest: tuple[Architecture, int] | None = None
    """The student that takes most, and its parameters; None where it is not known."""
    smaller: tuple[str, ...] = ()
    """Settings that take less memory, as advice."""

    @classmethod
    def of(
        cls,
        spaces: Iterable[Space],
        memory: TrialMemory,
        *,
        on_gpu: bool,
        bounds: Sequence[tuple[Architecture, float]] = (),
    ) -> "Need":
        """The estimate, over all students of the spaces, and over `bounds` of others: architectures
        that enclose them, and their parameters."""
        found = []
        students = [(space.feasible, space.parameters) for space in spaces]
        for shapes, counts in [*students, *(((shape,), (count,)) for shape, count in bounds)]:
            columns: dict[str, Any] = {
                axis: np.array([getattr(a, axis) for a in shapes]) for axis in AXES
            }
            architectures = Architecture(**columns)
            parameters = np.array(counts, dtype=np.float64)
            gpu = memory.on_gpu(architectures, parameters) if on_gpu else np.zeros(len(parameters))
            host = memory.process(architectures, parameters, beside_gpu=on_gpu)
            index = int((gpu if on_gpu else host).argmax())
            largest = shapes[index], int(parameters[index])
            found.append((float(host.max()), float(gpu.max()), largest))
        host, gpu, largest = max(found, key=lambda one: (one[1], one[0]))
        what, smaller = f"{_millions(largest[1])} parameters, {memory}", memory.training.smaller
        return cls(host, gpu, what, largest, tuple(smaller))

    @property
    def remedy(self) -> str:
        """What to do where it does not fit."""
        return " or ".join([*self.smaller, "give a smaller --budget.parameters"])

    def stated(self, gigabytes: float | None) -> "Need":
        """With the memory that the user states instead; a GPU's where there is one."""
        if gigabytes is None:
            return self
        said = replace(self, what="--resources.memory_gb")
        size = gigabytes * GB
        return replace(said, gpu=size) if self.gpu else replace(said, memory=size)


@dataclass(frozen=True)
class Free:
    """Memory that runs on this machine may take, before a teacher is loaded."""

    memory: float
    """Bytes of the machine's memory."""
    gpu: float
    """Bytes of the fullest GPU's memory; 0 without one."""

    @classmethod
    def now(cls, machine: Machine, *, dashboard: bool, on_gpu: bool) -> "Free":
        """What is free less what Ray and this process will take."""
        kept = RAY + (DASHBOARDS if dashboard else 0) + (1 - RAY_KILLS_ABOVE) * machine.whole_memory
        gpu = min(map(_free_of_gpu, range(torch.cuda.device_count()))) if on_gpu else 0
        return cls(max(0.0, machine.memory - kept), gpu)


def _free_of_gpu(index: int) -> int:
    return torch.cuda.mem_get_info(index)[0]


def fitted(
    resources: Resources, need: Need, *, free: Free | None, config: ResourceConfig
) -> tuple[Resources, list[str]]:
    """The slots of which as many are left as memory holds, at least one, and what to say of it.

    `free` is None on a cluster: its nodes say what memory they have, which runs then reserve, but
    not of their GPUs. Where the user says how many, that stays. An estimate is no proof, so that
    nothing is refused.
    """
    need = need.stated(config.memory_gb)
    nodes, lines = resources.nodes, list[str]()
    if free is not None:
        nodes = tuple(replace(node, memory=free.memory) for node in nodes)
        resources, lines = _by_gpu(resources, need, free=free, config=config)
    nodes = tuple(node for node in nodes if resources.room(node))
    fit = sum(_room(node, resources, each=need.memory) for node in nodes)
    total = sum(node.memory for node in nodes)
    where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    fits = min(fit, resources.concurrent)
    lines.append(
        f"memory: about {need.memory / GB:.1f} GB a {_of(resources)} ({need.what}); {fits} of "
        f"{resources.concurrent} fit {total / GB:.1f} GB{where}"
    )
    if not fit:
        lines.append(f"warning: by this estimate not even one trial fits the memory; {need.remedy}")
    elif fit < resources.concurrent and config.concurrent:
        lines.append(_kept(config))
    if not config.concurrent:
        resources = replace(resources, concurrent=max(1, fits))
    if free is None and resources.concurrent <= fit and total < math.inf:
        resources = replace(resources, memory=int(need.memory))
    return resources, lines


def _room(node: Node, resources: Resources, *, each: float) -> int:
    return min(resources.room(node), int(min(node.memory / (resources.workers * each), 1e9)))


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f}M" if count < 1e7 else f"{count / 1e6:,.0f}M"


def _by_gpu(
    resources: Resources, need: Need, *, free: Free, config: ResourceConfig
) -> tuple[Resources, list[str]]:
    """With larger shares of a GPU, where fewer trials fit one than have a share of it."""
    if not (need.gpu and resources.gpus):
        return resources, []
    sharing = int(1 / resources.gpus + 1e-9) if resources.gpus < 1 else 1
    fit = int(min(free.gpu / need.gpu, sharing))
    lines = [
        f"GPU memory: about {need.gpu / GB:.1f} GB a {_of(resources)} ({need.what}); {fit} of "
        f"{sharing} fit the {free.gpu / GB:.1f} GB of a GPU"
    ]
    if not fit:
        lines.append(f"warning: by this estimate not even one trial fits a GPU; {need.remedy}")
    elif fit < sharing and config.concurrent:
        lines.append(_kept(config))
    if fit < sharing and not config.concurrent:
        resources = replace(resources, gpus=1 / max(1, fit))
    return resources, lines


def _of(resources: Resources) -> str:
    """What takes so much memory."""
    if resources.workers == 1:
        return "trial"
    return f"process, {resources.workers} a trial"


def _kept(config: ResourceConfig) -> str:
    return (
        f"warning: --resources.concurrent is {config.concurrent}, above what fits by this "
        "estimate; it is kept, and lowered where a trial is killed for memory"
    )
