"""Groups of slots that train one student together, its state in shards (torch FSDP2).

The driver holds the first slot of a group and gives it all work; the others follow it. They lie on
one node, which torch's process group and the run's checkpoints then share.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
import torch
import torch.distributed as dist
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from distill.backend import ALONE, World
from search.cluster.ray_errors import WorkerFailure
from search.cluster.resources import Resources

Result = TypeVar("Result")
POLL_SECONDS = 0.5
"""Between two looks at whether a process that follows has failed."""
TOLD_SECONDS = 5.0
"""In which a process whose failure broke the others' run has told of it."""


@dataclass(frozen=True)
class Followers:
    """The slots that follow a first one, and the place on a node that all of them have."""

    slots: Sequence[Any]
    placement: Any

    def end(self) -> None:
        """End them, and give their place back."""
        for slot in self.slots:
            ray.kill(slot)
        remove_placement_group(self.placement)


def start_group(
    actor: Any, given: Resources, *, name: str, namespace: str
) -> tuple[Any, Followers]:
    """The first slot of a new group of `actor`, called `name`, and its followers."""
    bundle: dict[str, float] = {"CPU": given.cpus}
    bundle |= {"GPU": given.gpus} if given.gpus else {}
    bundle |= {"memory": given.memory} if given.memory else {}
    placement = placement_group([bundle] * given.workers, strategy="STRICT_PACK")

    def member(index: int, *arguments: Any) -> Any:
        place = PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=index)
        return actor.options(
            name=f"{name} worker {index}" if index else name,
            namespace=namespace,
            num_cpus=given.cpus,
            num_gpus=given.gpus,
            memory=given.memory,
            scheduling_strategy=place,
        ).remote(*arguments)

    followers = [member(index) for index in range(1, given.workers)]
    return member(0, followers), Followers(followers, placement)


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a group meet, and who one of them is."""

    address: str
    """A URL that torch's process groups begin at."""
    rank: int
    """Number of the process."""
    size: int
    """Number of processes."""

    def join(self, device: str) -> World:
        """Wait for all others. The group lasts as long as the process."""
        place = torch.device(device)
        if not dist.is_initialized():
            backend = "nccl" if place.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, init_method=self.address, rank=self.rank, world_size=self.size
            )
        return World.of_group(place)


class Leader:
    """The first process's part: has the others follow, and tells of the first one that fails."""

    def __init__(self, followers: Sequence[Any]):
        """Without followers, work is done as it is."""
        self.followers = followers
        self._address = f"tcp://127.0.0.1:{_free_port()}" if followers else ""
        # Work waits for the others without end where one fails, so that it has its own thread.
        self._thread = ThreadPoolExecutor(1, "run") if followers else None

    def world(self, device: str) -> World:
        """The processes of the group."""
        return self._meeting(0).join(device) if self.followers else ALONE

    def do(
        self, label: str, work: Callable[[], Result], follow: Callable[[Any, Meeting], Any]
    ) -> Result | WorkerFailure:
        """What `work` gives, while `follow` has every other slot do its part at a meeting.

        A failure of one of the others, which they return, is returned in its place. Where one of
        their processes dies, this one dies too.
        """
        if self._thread is None:
            return work()
        waiting = [
            follow(slot.follow.options(name=f"{label} worker {rank}"), self._meeting(rank))
            for rank, slot in enumerate(self.followers, 1)
        ]
        own = self._thread.submit(work)
        while waiting:
            patience = TOLD_SECONDS if _failed(own) else POLL_SECONDS
            done, waiting = ray.wait(waiting, timeout=patience)
            failures = [failure for failure in map(_outcome, done) if failure is not None]
            if failures:
                return failures[0]
            if not done and patience == TOLD_SECONDS:
                break
        return own.result()

    def leave(self) -> None:
        """Have the others leave their part of a run."""
        for slot in self.followers:
            slot.leave.remote()

    def _meeting(self, rank: int) -> Meeting:
        return Meeting(self._address, rank, 1 + len(self.followers))


def _failed(own: Future[Any]) -> bool:
    """Whether this process's part failed by itself, and not since another's did."""
    return own.done() and isinstance(own.result(), WorkerFailure)


def _outcome(reference: Any) -> WorkerFailure | None:
    """How a follower's part ended; ends this process as the follower's was, where it died."""
    try:
        failure: WorkerFailure | None = ray.get(reference)
    except RayError:
        os.kill(os.getpid(), signal.SIGKILL)  # so that the driver sees a process that died
        raise
    return failure


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
