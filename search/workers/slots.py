"""Slots of one start of a study, as its driver sees them: made where there is work, kept for the
next."""

import contextlib
import itertools
import math
import time
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from search.cluster.room import Room
from search.workers.groups import Followers, start_group

SHARED_SECONDS = 5.0
"""After which a slot without work is given up on a cluster that others may be waiting for."""
TRUSTED_SECONDS = 1.0
"""After which a slot without work is asked whether it still lives before it is given some."""
ANSWER_SECONDS = 5.0
"""In which it must answer; Ray may take longer to notice that its node is dead."""


class SlotPool:
    """Slots for trials and full runs, as many as there is room for."""

    def __init__(
        self,
        room: Room,
        actor: Any,
        *,
        kept_seconds: float = math.inf,
        numbers: Iterator[int] | None = None,
    ):
        """`actor` is the Ray actor that is started for each, such as `Slot`; `kept_seconds` is how
        long one without work is kept; `numbers` are those of slots, for their names, which pools
        of one search share."""
        self.numbers = itertools.count(1) if numbers is None else numbers
        # No two actors of a namespace may have one name.
        self.namespace = f"slots-{uuid.uuid4().hex}"
        self.room, self.actor, self.kept_seconds = room, actor, kept_seconds
        self._idle: list[tuple[Any, float]] = []
        """With when the last run ended, on the monotonic clock."""
        self._busy: list[Any] = []
        self.beside: list[SlotPool] = []
        """Other pools of the same processors, whose slots without work make room for its own."""
        self._followers: dict[int, Followers] = {}
        """Of the first slot of a group, by its identity."""

    def take(self) -> Any:
        """A slot for a run: one that has done others and still lives, or a new one."""
        slot = self._living() or self._started()
        self._busy.append(slot)
        return slot

    def _living(self) -> Any:
        """One without work that answers; those that do not are given up. None where there is
        none."""
        while self._idle:
            slot, since = self._idle.pop()
            if time.monotonic() - since < TRUSTED_SECONDS:
                return slot
            with contextlib.suppress(RayError):
                ray.get(slot.__ray_ready__.remote(), timeout=ANSWER_SECONDS)
                return slot
            self._end(slot)
        return None

    def _started(self) -> Any:
        given = self.room.resources
        for other in self.beside:
            other.release()
        name = f"slot {next(self.numbers)}"
        if given.workers > 1:
            slot, followers = start_group(self.actor, given, name=name, namespace=self.namespace)
            self._followers[id(slot)] = followers
            return slot
        return self.actor.options(
            name=name,
            namespace=self.namespace,
            num_cpus=given.cpus,
            num_gpus=given.gpus,
            memory=given.memory,
        ).remote()

    def _end(self, slot: Any) -> None:
        ray.kill(slot)
        if followers := self._followers.pop(id(slot), None):
            followers.end()

    def give_back(self, slot: Any) -> None:
        """After a run that ended well; kept unless there is room for fewer by now."""
        self._busy.remove(slot)
        if len(self._busy) + len(self._idle) < self.room.limit:
            self._idle.append((slot, time.monotonic()))
        else:
            self._end(slot)

    def drop(self, slot: Any) -> None:
        """After a run that failed, and may have left the process or its device in disorder."""
        self._busy.remove(slot)
        self._end(slot)

    def let_go(self) -> None:
        """Have the slots without work let go of the models that they keep from task to task."""
        for slot, _ in self._idle:
            slot.leave.options(name="end of tasks").remote()

    def release(self) -> None:
        """End the slots without work, so that something else can use what they reserve."""
        for slot, _ in self._idle:
            self._end(slot)
        self._idle.clear()

    def release_all(self) -> None:
        """The same of this pool and those beside it."""
        for pool in (self, *self.beside):
            pool.release()

    def release_unused(self) -> None:
        """End those that have been without work for too long."""
        last = time.monotonic() - self.kept_seconds
        for slot, since in [entry for entry in self._idle if entry[1] <= last]:
            self._end(slot)
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
            self._end(slot)
        self._busy.clear()
        self.release()
