"""Slots: where the tasks of a block library run, and the groups of layers that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.cluster.resources import Resources
from search.cluster.room import Room
from search.cluster.tasks import TaskPool
from search.workers.access import WorkspaceAccess


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Where tasks run."""

    resources: Resources
    """What each gets."""
    room: Room
    """How many run at once."""
    access: WorkspaceAccess | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""
    errors: Path
    """File that takes Ray's own words on tasks that failed."""

    def pool(self, name: str, *, failed: str) -> TaskPool:
        """A pool of tasks called `name`; `failed` is said first where one fails for good."""
        return TaskPool(name, failed, self.resources, self.room, self.errors)


def groups_of(layers: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """The layers in `count` groups of neighbours, as equal as can be."""
    count = max(1, min(count, len(layers)))
    bounds = [place * len(layers) // count for place in range(count + 1)]
    return [tuple(layers[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
