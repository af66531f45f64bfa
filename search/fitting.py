"""As many runs at once as memory holds, by an estimate, and one line that says so."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pruning import AXES, Architecture
from search.cluster import Node, Slots
from search.config_sections import ResourceConfig
from search.machine import Machine
from search.space import Space
from search.trial_memory import GB, TrialMemory

RAY = 0.7 * GB
"""What Ray's own processes (0.47 GB measured), and this one until the trials, take besides."""
DASHBOARDS = 0.9 * GB
"""What the dashboards take; 0.8 GB of Ray's processes measured."""
RAY_KILLS_ABOVE = 0.95
"""Share of a machine's memory in use above which Ray kills workers."""
REMEDY = "a lower --training.micro_batch or --training.gradient_checkpointing takes less"


@dataclass(frozen=True)
class Need:
    """What a run takes, of the student that takes most."""

    memory: float
    """Bytes of the machine's memory."""
    gpu: float
    """Bytes of a GPU's; 0 without one."""
    what: str
    """Where that is from, in words."""

    @classmethod
    def of(cls, spaces: Iterable[Space], memory: TrialMemory, on_gpu: bool) -> "Need":
        """The estimate, over all students of the spaces."""
        found = []
        for space in spaces:
            columns: dict[str, Any] = {
                axis: np.array([getattr(a, axis) for a in space.feasible]) for axis in AXES
            }
            a = Architecture(**columns)
            parameters = np.array(space.parameters, dtype=np.float64)
            gpu = memory.on_gpu(a, parameters) if on_gpu else np.zeros(len(parameters))
            host = memory.process(a, parameters, beside_gpu=on_gpu)
            index = int((gpu if on_gpu else host).argmax())
            found.append((float(host.max()), float(gpu.max()), parameters[index]))
        host, gpu, parameters = max(found, key=lambda one: (one[1], one[0]))
        return cls(host, gpu, f"{_millions(parameters)} parameters, {memory}")

    def given(self, gigabytes: float | None) -> "Need":
        """With what the user says instead of the estimate; of a GPU's memory where there is one."""
        if gigabytes is None:
            return self
        said = replace(self, what="--resources.memory_gb")
        size = gigabytes * GB
        return replace(said, gpu=size) if self.gpu else replace(said, memory=size)


@dataclass(frozen=True)
class Free:
    """What runs on this machine may take, before a teacher is loaded."""

    memory: float
    """Bytes."""
    gpu: float
    """Bytes of the fullest GPU; 0 without one."""

    @classmethod
    def now(cls, machine: Machine, dashboard: bool, on_gpu: bool) -> "Free":
        """What is free less what Ray and this process will take."""
        kept = RAY + (DASHBOARDS if dashboard else 0) + (1 - RAY_KILLS_ABOVE) * machine.whole_memory
        gpu = min(map(_free_of_gpu, range(torch.cuda.device_count()))) if on_gpu else 0
        return cls(max(0.0, machine.memory - kept), gpu)


def _free_of_gpu(index: int) -> int:
    return torch.cuda.mem_get_info(index)[0]


def fitted(
    slots: Slots, need: Need, free: Free | None, given: ResourceConfig
) -> tuple[Slots, list[str]]:
    """The slots of which as many are left as memory holds, at least one, and what to say of it.

    `free` is None on a cluster: its nodes say what memory they have, which runs then reserve, but
    not of their GPUs. Where the user says how many, that stays. An estimate is no proof, so that
    nothing is refused.
    """
    need = need.given(given.memory_gb)
    nodes, lines = slots.nodes, list[str]()
    if free is not None:
        nodes = tuple(replace(node, memory=free.memory) for node in nodes)
        slots, lines = _by_gpu(slots, need, free, given)
    nodes = tuple(node for node in nodes if node.room(slots.cpus, slots.gpus))
    fit = sum(_room(node, slots, need.memory) for node in nodes)
    total = sum(node.memory for node in nodes)
    where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    fits = min(fit, slots.concurrent)
    lines.append(
        f"memory: about {need.memory / GB:.1f} GB a trial ({need.what}); {fits} of "
        f"{slots.concurrent} fit {total / GB:.1f} GB{where}"
    )
    if not fit:
        lines.append(f"warning: by this estimate not even one trial fits the memory; {REMEDY}")
    elif fit < slots.concurrent and given.concurrent:
        lines.append(_kept(given))
    if not given.concurrent:
        slots = replace(slots, concurrent=max(1, fits))
    if free is None and slots.concurrent <= fit and total < math.inf:
        slots = replace(slots, memory=int(need.memory))
    return slots, lines


def _room(node: Node, slots: Slots, each: float) -> int:
    return min(node.room(slots.cpus, slots.gpus), int(min(node.memory / each, 1e9)))


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f}M" if count < 1e7 else f"{count / 1e6:,.0f}M"


def _by_gpu(slots: Slots, need: Need, free: Free, given: ResourceConfig) -> tuple[Slots, list[str]]:
    """With larger shares of a GPU, where fewer trials fit one than have a share of it."""
    if not (need.gpu and slots.gpus):
        return slots, []
    sharing = int(1 / slots.gpus + 1e-9) if slots.gpus < 1 else 1
    fit = int(min(free.gpu / need.gpu, sharing))
    lines = [
        f"GPU memory: about {need.gpu / GB:.1f} GB a trial ({need.what}); {fit} of {sharing} fit "
        f"the {free.gpu / GB:.1f} GB of a GPU"
    ]
    if not fit:
        lines.append(f"warning: by this estimate not even one trial fits a GPU; {REMEDY}")
    elif fit < sharing and given.concurrent:
        lines.append(_kept(given))
    if fit < sharing and not given.concurrent:
        slots = replace(slots, gpus=1 / max(1, fit))
    return slots, lines


def _kept(given: ResourceConfig) -> str:
    return (
        f"warning: --resources.concurrent is {given.concurrent}, above what fits by this estimate; "
        "it is kept, and lowered where a trial is killed for memory"
    )
