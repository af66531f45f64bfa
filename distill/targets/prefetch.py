"""Prefetching in a thread: a bounded queue, no lost exceptions."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Argument], Result], arguments: Iterable[Argument], depth: int = 2
) -> Generator[Result]:
    """Like `map(work, arguments)`, but one thread computes up to `depth` results ahead.

    An exception of `work` is raised where its result is asked for. Closed early, it waits for what
    is under way and begins nothing more.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1, "ahead") as thread:
        try:
            for argument in arguments:
                waiting.append(thread.submit(work, argument))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
