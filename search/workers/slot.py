"""Slot: a worker process of Ray that takes up one run after the other, and other tasks.

A process starts in seconds, with imports and a device to open, so one is kept for all work. Each
run is a task of its slot with the run's name: so Ray's dashboard has it, the title of the process
while it runs, and the prefix of its lines.
"""

import contextlib
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray._private.ray_constants import LOG_PREFIX_ACTOR_NAME
from ray.util.metrics import Gauge

from common.log import plain_lines
from common.signals import quiet_exits
from common.values import in_ascii
from distill.recipes import RunReport, write_finished
from search.cluster.ray_errors import WorkerFailure
from search.cluster.resources import Resources
from search.workers.access import WorkspaceAccess
from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.pieces import PieceTask, PieceWriter
from search.workers.staging import RunDirectory

TAGS = ("study", "trial")


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """All that a slot is given for a run."""

    job: Job
    """The student to train."""
    assets: SearchAssets
    """What it is cut out of and learns from."""
    resources: Resources
    """What the run gets of its node."""
    output: Path | None
    """Directory of the workspace for the student of a run that comes to its end; None: it is not
    kept."""
    access: WorkspaceAccess | None = None
    """How it reaches a workspace that its node may not see; None: it sees it."""
    dtype: str = "float32"
    """Type in which the student is written, as torch names it."""

    @property
    def name(self) -> str:
        """Readable name of the run."""
        return self.job.name

    @property
    def label(self) -> str:
        """What Ray calls it: the name of its task, and what is put before its lines."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class TrialTask(WorkerTask):
    """All that a slot is given for a trial."""

    study: str
    """Name of the study, for metrics."""

    @property
    def label(self) -> str:
        """With the architecture, which names of trials have not."""
        return str(self.job)


@dataclass(frozen=True)
class _OpenRun:
    """A run that a slot is in."""

    task: WorkerTask
    directory: RunDirectory
    run: CandidateRun

    @classmethod
    def of(cls, task: WorkerTask) -> "_OpenRun":
        """From its checkpoint if there is one."""
        torch.set_num_threads(task.resources.cpus)
        directory = RunDirectory(task.assets, task.job, access=task.access)
        try:
            after_save = directory.send_checkpoint
            run = CandidateRun(directory.assets, directory.job, after_save=after_save)
        except BaseException:
            directory.close()
            raise
        return cls(task, directory, run)

    def next_report(self) -> RunReport:
        """Train to the next evaluation; at the end, write the student where it is kept."""
        report, task = self.run.next_report(), self.task
        if report.done and task.output is not None:
            with self.directory.output(task.output) as here:
                write_finished(
                    self.run,
                    report,
                    dtype=task.dtype,
                    output=here,
                    from_trial=isinstance(task, TrialTask),
                )
        return report


@ray.remote(max_restarts=0, max_task_retries=0)
class Slot:
    """Trains trials and full runs and does other tasks, one after the other."""

    def __init__(self) -> None:
        quiet_exits()
        self._open: _OpenRun | None = None
        self._writer: PieceWriter | None = None
        self._gauges = {
            name: Gauge(f"espalier_{name}", description=text, tag_keys=TAGS)
            for name, text in (
                ("kl", "forward KL to the teacher on the selection split, nats per token"),
                ("tokens", "tokens trained on"),
            )
        }

    def __repr__(self) -> str:
        return "slot"

    def next_report(self, task: TrialTask) -> RunReport | WorkerFailure:
        """Train a trial to its next evaluation, or say why it failed.

        A trial that the slot is in goes on where it is; another one is begun, or goes on from its
        checkpoint.
        """
        try:
            with plain_lines():
                report = self._opened(task).next_report()
        except Exception as problem:
            return WorkerFailure.of(problem)
        tags = {"study": in_ascii(task.study), "trial": in_ascii(task.name)}
        self._gauges["kl"].set(report.curve[-1].kl, tags)
        self._gauges["tokens"].set(report.tokens, tags)
        if report.done:
            self.leave()
        return report

    def train(self, task: WorkerTask) -> WorkerFailure | None:
        """Do a run from its beginning, or its checkpoint, to its end; returns why it failed, or
        None."""
        try:
            with plain_lines():
                run = self._opened(task)
                while not run.next_report().done:
                    pass
        except Exception as problem:
            return WorkerFailure.of(problem)
        self.leave()
        return None

    def write(self, task: PieceTask) -> WorkerFailure | None:
        """Compute a piece of what a study computes once; returns why it failed, or None.

        Its model stays loaded for the next piece.
        """
        try:
            with plain_lines():
                if self._writer is None or self._writer.model != task.model:
                    self.leave()
                    _name_lines(task.label)
                    self._writer = PieceWriter(task)
                self._writer.write(task)
        except Exception as problem:
            return WorkerFailure.of(problem)
        return None

    def call(
        self, name: str, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """What a function gives for some arguments, or why it failed."""
        self.leave()
        _name_lines(name)
        torch.set_num_threads(threads)
        try:
            with plain_lines():
                return function(*arguments)
        except Exception as problem:
            return WorkerFailure.of(problem)
        finally:
            _tidy()

    def leave(self) -> None:
        """Leave the run that this slot is in, which may go on from its checkpoint elsewhere, and
        the model that it keeps for further pieces."""
        if self._open is None and self._writer is None:
            return
        compiled = False
        if self._open is not None:
            self._open.directory.close()
            compiled = self._open.task.assets.training.compile
        self._open = self._writer = None
        if compiled:  # torch compiles a few models of a class, and runs the next ones as they are
            torch.compiler.reset()
        _tidy()

    def _opened(self, task: WorkerTask) -> _OpenRun:
        """The run of `task`, taken up if this slot is not in it."""
        if self._open is None or self._open.task.job != task.job:
            self.leave()
            _name_lines(task.label)
            self._open = _OpenRun.of(task)
        return self._open


def _tidy() -> None:
    """Give memory back: models and optimisers hold each other, and so outlive their last user."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _name_lines(name: str) -> None:
    """Have Ray's driver put `name` before the lines that this process prints from now on.

    Its log monitor takes the name from such a line, which Ray itself writes where an actor is made.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            print(f"{LOG_PREFIX_ACTOR_NAME}{name}", file=stream, flush=True)
