"""Tasks on Ray, as many at once as there is room for, put back where memory was too small."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from common.errors import SearchStopped
from search.cluster.ray_errors import noted, of_memory
from search.cluster.resources import Resources
from search.cluster.room import Room

LOGGER = logging.getLogger(__name__)
Job = TypeVar("Job")


@dataclass(frozen=True)
class TaskPool:
    """Room on Ray for tasks of one kind."""

    name: str
    """In lines of progress and in the log of errors."""
    failed: str
    """What is said first where a task fails for good."""
    resources: Resources
    """What each task gets."""
    room: Room
    """How many go at once."""
    log: Path
    """File that takes Ray's own words on tasks that failed."""
    poll_seconds: float = 10.0
    """Longest time between two calls of `meanwhile`."""

    def results(
        self,
        function: Any,
        jobs: Sequence[Job],
        *,
        arguments: Callable[[Job], tuple[Any, ...]],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Any]]:
        """(job, what `function` gave for its arguments), as they are done.

        Args:
            function: A Ray remote function.
            jobs: What there is to do; started in this order.
            arguments: Of the function for a job.
            meanwhile: Called every now and then, such as to say how far they are.

        Raises:
            SearchStopped: A task failed, or does not fit the memory by itself.
        """
        given = self.resources
        remote = function.options(num_cpus=given.cpus, num_gpus=given.gpus, memory=given.memory)
        waiting, pending = deque(jobs), dict[Any, Job]()
        while waiting or pending:
            while waiting and len(pending) < self.room.limit:
                job = waiting.popleft()
                pending[remote.remote(*arguments(job))] = job
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=self.poll_seconds)
            meanwhile()
            for reference in ready:
                job = pending.pop(reference)
                try:
                    result = ray.get(reference)
                except RayError as problem:
                    self._put_back(problem, others=len(pending))
                    waiting.appendleft(job)
                    continue
                yield job, result

    def _put_back(self, problem: RayError, *, others: int) -> None:
        """A task wanted for memory: fewer run from now on; else the search stops."""
        reason = self.room.explained(noted(self.log, self.name, problem=problem))
        said = self.room.lowered(reason, others) if of_memory(reason) else None
        if said is None:
            raise SearchStopped(
                f"{self.failed}: {reason}; mend the cause and start the same command again"
            ) from None
        LOGGER.info(f"{self.name}: {said}")
