"""Data parallelism: one run on several processes, its state in shards (torch FSDP2).

It knows torch's process groups; who starts the processes is not its business. A process that works
alone needs no group.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from distill.backend.layers import decoder_layers


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    """Number of this process."""
    size: int = 1
    """Number of processes."""
    mesh: DeviceMesh | None = field(default=None, compare=False)
    """Their devices; None for a process that works alone."""

    @classmethod
    def of_group(cls, device: torch.device) -> "World":
        """That of torch's default process group, which must have been made."""
        size = dist.get_world_size()
        mesh = init_device_mesh(device.type, (size,)) if size > 1 else None
        return cls(dist.get_rank(), size, mesh)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def all(self) -> "list[World]":
        """The processes, each seen from itself."""
        return [World(rank, self.size, self.mesh) for rank in range(self.size)]

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every process, in order of rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def agree(self, value: bool) -> bool:
        """The value of the first process, for decisions that all must share."""
        if self.mesh is None:
            return value
        flag = torch.tensor(float(value), device=self.mesh.device_type)
        dist.broadcast(flag, src=0)
        return bool(flag.item())

    def all_of(self, value: bool) -> bool:
        """Whether `value` is true on every process."""
        if self.mesh is None:
            return value
        flag = torch.tensor(float(value), device=self.mesh.device_type)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
        return bool(flag.item())


ALONE = World()
"""The world of a run on one process."""


def shard(model: nn.Module, student: Any, world: World) -> None:
    """Give every process its rows of all parameters of `model`, which holds the `student`.

    A decoder layer is gathered when it computes; everything else at the start of a step.
    """
    if world.mesh is None:
        return
    for layer in decoder_layers(student):
        fully_shard(layer, mesh=world.mesh)
    fully_shard(model, mesh=world.mesh)


def to_local(tensor: Tensor) -> Tensor:
    """The part of `tensor` that this process holds; all of it where it is not sharded."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part


def to_full(tensor: Tensor) -> Tensor:
    """All of `tensor`, gathered from the processes: all of them must ask."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


def shard_offset(tensor: Tensor, world: World) -> int:
    """The row of the full `tensor` at which this process's rows begin."""
    if not isinstance(tensor, DTensor):
        return 0
    per_process = -(-tensor.shape[0] // world.size)  # as torch.chunk cuts
    return min(world.rank * per_process, tensor.shape[0])
