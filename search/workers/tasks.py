"""Tasks on slots, as many at once as there is room for, given again where a process was lost."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError

from common.errors import SearchStopped
from search.cluster.ray_errors import (
    DIED,
    LOST_NODE_SECONDS,
    WorkerFailure,
    noted,
    of_memory,
)
from search.workers.slots import SlotPool

LOGGER = logging.getLogger(__name__)
Job = TypeVar("Job")
RETRIES = 3
"""How often a task is given again whose process died."""
WAIT_SECONDS = 1.0
"""Between two looks at whether a node that may be lost can be taken for lost."""


@dataclass(frozen=True)
class _Attempt(Generic[Job]):
    """One more try at a job."""

    job: Job
    losses: int = 0
    """How many processes it lost before."""


@dataclass(frozen=True)
class TaskPool:
    """Slots for tasks of one kind."""

    name: str
    """In lines of progress and in the log of errors."""
    failed: str
    """What is said first where a task fails for good."""
    slots: SlotPool
    """Where they run."""
    log: Path | None
    """File that takes Ray's own words on tasks that failed."""
    most: float = math.inf
    """At once, where that is fewer than there is room for."""
    poll_seconds: float = 10.0
    """Longest time between two calls of `meanwhile`."""

    def called(
        self,
        function: Callable[..., Any],
        jobs: Iterable[Job],
        *,
        arguments: Callable[[Job], tuple[Any, ...]],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Any]]:
        """(job, what `function` gave for its arguments), as they are done.

        Args:
            function: Of a module that slots have too.
            jobs: What there is to do; started in this order.
            arguments: Of the function for a job.
            meanwhile: Called every now and then, such as to say how far they are.

        Raises:
            SearchStopped: A task failed, or does not fit the memory by itself.
        """
        threads = self.slots.room.resources.cpus

        def start(slot: Any, job: Job) -> Any:
            given = function, arguments(job)
            return slot.call.options(name=self.name).remote(self.name, threads, *given)

        return self.results(jobs, start=start, meanwhile=meanwhile)

    def results(
        self,
        jobs: Iterable[Job],
        *,
        start: Callable[[Any, Job], Any],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Any]]:
        """As `called`, of what `start(slot, job)` gives Ray's reference to: a result or a
        WorkerFailure."""
        waiting = deque(_Attempt(job) for job in jobs)
        running: dict[Any, tuple[_Attempt[Job], Any]] = {}
        not_before = -math.inf
        with self.slots.closed_on_failure():
            while waiting or running:
                limit = min(self.slots.room.limit, self.most)
                while waiting and len(running) < limit and time.monotonic() >= not_before:
                    attempt, slot = waiting.popleft(), self.slots.take()
                    running[start(slot, attempt.job)] = attempt, slot
                for reference in self._ready(running):
                    attempt, slot = running.pop(reference)
                    result = _result(reference)
                    if not isinstance(result, WorkerFailure | RayError):
                        self.slots.give_back(slot)
                        yield attempt.job, result
                        continue
                    self.slots.drop(slot)
                    again = self._again(attempt, result, others=len(running))
                    waiting.appendleft(again)
                    if again.losses > attempt.losses and self.slots.kept_seconds < math.inf:
                        not_before = time.monotonic() + LOST_NODE_SECONDS  # a cluster has others
                meanwhile()
                self.slots.release_unused()

    def _ready(self, running: Collection[Any]) -> list[Any]:
        """References to what is done, waited for a while."""
        if not running:
            time.sleep(WAIT_SECONDS)
            return []
        ready: list[Any] = ray.wait(list(running), num_returns=1, timeout=self.poll_seconds)[0]
        return ready

    def _again(
        self, attempt: _Attempt[Job], problem: WorkerFailure | RayError, *, others: int
    ) -> _Attempt[Job]:
        """The next try. Raises SearchStopped where there is none: the task would fail again, has
        lost too many processes, or wants for memory alone."""
        if isinstance(problem, WorkerFailure):
            reason = problem.noted(self.log, self.name)
        else:
            reason = self.slots.room.explained(noted(self.log, self.name, problem=problem))
        if of_memory(reason):
            said = self.slots.room.lowered(reason, others)
            if said is not None:
                LOGGER.info(f"{self.name}: {said}")
                return attempt
        elif reason.startswith(DIED) and attempt.losses < RETRIES:
            LOGGER.info(f"{self.name}: {reason}; taking it up again")
            return replace(attempt, losses=attempt.losses + 1)
        raise SearchStopped(
            f"{self.failed}: {reason}; mend the cause and start the same command again"
        )


def _result(reference: Any) -> Any:
    """What a task gave, or how its process ended."""
    try:
        return ray.get(reference)
    except RayError as problem:
        return problem
