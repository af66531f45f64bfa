"""Slots: where the tasks of a block library run, and the groups of layers that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.cluster.resources import Resources
from search.cluster.room import Room
from search.workers.access import WorkspaceAccess
from search.workers.slots import SlotPool
from search.workers.tasks import TaskPool


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Where tasks run."""

    slots: SlotPool
    """The processes, one task after the other."""
    access: WorkspaceAccess | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""
    errors: Path
    """File that takes Ray's own words on tasks that failed."""

    @property
    def room(self) -> Room:
        """How many run at once."""
        return self.slots.room

    @property
    def resources(self) -> Resources:
        """What each gets."""
        return self.room.resources

    def pool(self, name: str, *, failed: str) -> TaskPool:
        """A pool of tasks called `name`; `failed` is said first where one fails for good."""
        return TaskPool(name, failed, self.slots, self.errors)


def groups_of(layers: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """The layers in `count` groups of neighbours, as equal as can be."""
    count = max(1, min(count, len(layers)))
    bounds = [place * len(layers) // count for place in range(count + 1)]
    return [tuple(layers[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
