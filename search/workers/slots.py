"""Slots of one start of a study, as its driver sees them: made where there is work, kept for the
next."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import ray

from search.cluster.room import Room
from search.workers.slot import Slot

SHARED_SECONDS = 5.0
"""After which a slot without work is given up on a cluster that others may be waiting for."""


class SlotPool:
    """Slots for trials and full runs, as many as there is room for."""

    def __init__(self, room: Room, *, kept_seconds: float = math.inf, actor: Any = Slot):
        """`kept_seconds` is how long a slot without work is kept; `actor` is the Ray actor that is
        started for each."""
        self.room, self.kept_seconds, self.actor = room, kept_seconds, actor
        self._idle: list[tuple[Any, float]] = []
        """With when the last run ended, on the monotonic clock."""
        self._busy: list[Any] = []

    def take(self) -> Any:
        """A slot for a run: one that has done others, or a new one."""
        slot = self._idle.pop()[0] if self._idle else self._started()
        self._busy.append(slot)
        return slot

    def _started(self) -> Any:
        given = self.room.resources
        return self.actor.options(
            num_cpus=given.cpus, num_gpus=given.gpus, memory=given.memory
        ).remote()

    def give_back(self, slot: Any) -> None:
        """After a run that ended well; kept unless there is room for fewer by now."""
        self._busy.remove(slot)
        if len(self._busy) + len(self._idle) < self.room.limit:
            self._idle.append((slot, time.monotonic()))
        else:
            ray.kill(slot)

    def drop(self, slot: Any) -> None:
        """After a run that failed, and may have left the process or its device in disorder."""
        self._busy.remove(slot)
        ray.kill(slot)

    def release(self) -> None:
        """End the slots without work, so that something else can use what they reserve."""
        for slot, _ in self._idle:
            ray.kill(slot)
        self._idle.clear()

    def release_unused(self) -> None:
        """End those that have been without work for too long."""
        last = time.monotonic() - self.kept_seconds
        for slot, since in [entry for entry in self._idle if entry[1] <= last]:
            ray.kill(slot)
            self._idle.remove((slot, since))

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Ends all where anything is raised inside, before others may take up what they are in."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all, whatever they are in."""
        for slot in self._busy:
            ray.kill(slot)
        self._busy.clear()
        self.release()
