"""Processes of one run on this machine, without Ray: for tests of `distill` alone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from distill.backend.parallel import ALONE, World
from tests.processes import fork_server


def together(size: int, store: Path, work: Callable[..., None], *arguments: object) -> None:
    """Do `work(world, *arguments)` in `size` processes (in this one for a single one)."""
    if size == 1:
        work(ALONE, *arguments)
        return
    fork_server()  # imports take longer than most that is done in a group
    mp.start_processes(
        _member, (size, str(store), work, arguments), size, start_method="forkserver"
    )


def _member(
    rank: int, size: int, store: str, work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    method = f"file://{store}"
    dist.init_process_group(
        "gloo", init_method=method, rank=rank, world_size=size, timeout=timedelta(seconds=600)
    )
    work(World.of_group(torch.device("cpu")), *arguments)
    dist.destroy_process_group()
