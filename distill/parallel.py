"""One run on several processes: parameters, gradients and moments in shards (torch FSDP2).

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

from distill.layers import decoder_layers


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = field(default=None, compare=False)

    @classmethod
    def of_group(cls, device: torch.device) -> "World":
        """That of torch's default process group, which must have been made."""
        size = dist.get_world_size()
        mesh = init_device_mesh(device.type, (size,)) if size > 1 else None
        return cls(dist.get_rank(), size, mesh)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
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
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, value: bool) -> bool:
        """What the first process says; for decisions that all must share."""
        if self.mesh is None:
            return value
        flag = torch.tensor(float(value), device=self.mesh.device_type)
        dist.broadcast(flag, src=0)
        return bool(flag.item())


ALONE = World()


def shard(model: nn.Module, student: Any, world: World) -> None:
    """Give every process its rows of all parameters of `model`, which holds the `student`.

    A decoder layer is gathered when it computes; everything else at the start of a step.
    """
    if world.mesh is None:
        return
    for layer in decoder_layers(student):
        fully_shard(layer, mesh=world.mesh)
    fully_shard(model, mesh=world.mesh)


def local(tensor: Tensor) -> Tensor:
    """The part of `tensor` that this process holds; all of it where it is whole."""
    found: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, gathered from the processes: all of them must ask."""
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found


def first_row(tensor: Tensor, world: World) -> int:
    """Where this process's rows begin in the whole of `tensor`."""
    if not isinstance(tensor, DTensor):
        return 0
    per_process = -(-tensor.shape[0] // world.size)  # as torch.chunk cuts
    return min(world.rank * per_process, tensor.shape[0])


def whole_state_dict(model: nn.Module, world: World) -> dict[str, Tensor]:
    """The weights of `model` in one piece, on the first process; {} on the others."""
    gathered = {}
    for name, value in model.state_dict().items():
        full = whole(value).detach()
        if world.first:
            gathered[name] = full.cpu()
    return gathered
