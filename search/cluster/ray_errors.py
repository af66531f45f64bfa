"""Failures of workers in one sentence of ours; Ray's own words and tracebacks go to a file.

Ray explains a killed worker in up to 60 lines: counters of its object store, the largest processes
of the machine, environment variables. The sentence says what happened and what can be done.
"""

import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

LOST_NODE_SECONDS = 20.0
"""In which Ray notices that a node is dead; until then it gives it work, which dies at once."""
DIED = "the worker died"
NODE_LOST = f"{DIED}: its node was lost"
OBJECT_LOST = f"{DIED}: what it needed was lost with the process or node that held it"
KILLED = f"{DIED}: it was killed from outside, or it crashed"
OUT_OF_MEMORY = f"{DIED}: it was killed since its machine was running out of memory"
_OF_MEMORY = re.compile(r"running low on memory|killed due to memory pressure")
_RAN_OUT = re.compile(
    r"(?:OutOfMemory|\w*MemoryError)\b|\w+Error: .*(?:t allocate memory|CUDA error: out of memory)"
)
_OF_A_NODE = re.compile(
    r"its node has died|the node it was running on is dead|node was terminated|local raylet died"
)
_RAISED = re.compile(
    r"^[A-Za-z_][\w.]*(?:Error|Exception|Diverged|Interrupt|Exit)\b.*", re.MULTILINE
)


@dataclass(frozen=True)
class WorkerFailure:
    """Why a run failed in its worker, as the worker tells it."""

    reason: str
    """One line that begins with the name of an exception, or what happened to Ray meanwhile."""
    details: str
    """The traceback."""

    @classmethod
    def of(cls, problem: Exception) -> Self:
        """Of the exception that is being handled."""
        reason = sentence(problem) if isinstance(problem, RayError) else one_line(problem)
        return cls(reason, traceback.format_exc())

    def noted(self, log: Path | None, name: str) -> str:
        """The reason, with where to read on: the traceback is appended to `log`."""
        return self.reason + note(log, name, text=self.details)


def one_line(problem: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    first = next(iter(str(problem).strip().splitlines()), "")
    return f"{type(problem).__name__}: {first}".removesuffix(": ")


def of_memory(reason: str) -> bool:
    """Whether a `sentence` or `one_line` is of a run that wanted for memory: it was killed for it,
    or none was left to allocate."""
    return reason.startswith(OUT_OF_MEMORY) or _RAN_OUT.match(reason) is not None


def sentence(problem: BaseException, remedy: str = "") -> str:
    """What happened, by one of Ray's errors; begins with DIED where a worker died.

    An exception of the work itself is given by its type and first line. `remedy` completes what is
    said of a worker that was killed for memory.
    """
    found = [_sentence(each, remedy) for each in _causes(problem)]
    told = [what for what in found if what.startswith(DIED) and what != KILLED]
    died = [what for what in found if what == KILLED]
    return (told or died or found)[0]  # what other workers then raised is only the consequence


def noted(log: Path | None, name: str, *, problem: BaseException) -> str:
    """The sentence of `problem`, with where to read on: its own words are appended to `log`."""
    return f"{sentence(problem)}{note(log, name, text=str(problem))}"


def note(log: Path | None, name: str, *, text: str) -> str:
    """Append `text` to `log` under a line with the `name` of its run; gives "(more in ...)"."""
    if log is None or not text.strip():
        return ""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {name}\n{text.strip()}\n")
    return f" (more in {log.name})"


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """`problem`, or what lies behind it: Ray wraps what a worker raises, and what a group does."""
    inner = getattr(problem, "controller_failure", None)
    if isinstance(problem, RayTaskError):
        inner = problem.cause
    group = getattr(problem, "worker_failures", None) or {}
    behind = [inner] if isinstance(inner, BaseException) else list(group.values())
    if not behind:
        yield problem
    for each in behind:
        yield from _causes(each)


def _sentence(problem: BaseException, remedy: str) -> str:
    text = str(problem)
    if isinstance(problem, OutOfMemoryError) or _OF_MEMORY.search(text):
        return OUT_OF_MEMORY + (f"; {remedy}" if remedy else "")
    if isinstance(problem, NodeDiedError | LocalRayletDiedError) or _OF_A_NODE.search(text):
        return NODE_LOST
    if isinstance(problem, ObjectLostError):
        return OBJECT_LOST
    raised = _RAISED.findall(re.sub(r"\x1b\[[0-9;]*m", "", text))
    if isinstance(problem, RayActorError | WorkerCrashedError) and not raised:
        return KILLED
    if isinstance(problem, RayActorError):  # what its constructor raised
        return str(raised[-1])
    if isinstance(problem, RayError):
        return f"Ray failed with {one_line(problem)}"
    return one_line(problem)
