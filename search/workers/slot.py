"""Slot: a worker process of Ray that takes up one run after the other, and other tasks.

A process starts in seconds, with imports and a device to open, so one is kept for all work. Each
run is a task of its slot with the run's name: so Ray's dashboard has it, the title of the process
while it runs, and the prefix of its lines.
"""

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray._private.ray_constants import LOG_PREFIX_ACTOR_NAME
from transformers.utils.logging import disable_progress_bar

from common.log import plain_lines
from common.signals import quiet_exits
from distill.backend import World
from distill.recipes import RunReport, write_finished
from search.cluster.ray_errors import WorkerFailure
from search.cluster.resources import Resources
from search.workers.access import WorkspaceAccess
from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.groups import Leader, Meeting
from search.workers.pieces import PieceTask, PieceWriter
from search.workers.run_gauges import RunGauges
from search.workers.staging import RunDirectory


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
    study: str = ""
    """Name of the study, for metrics."""

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
    def of(cls, task: WorkerTask, directory: RunDirectory, world: World) -> "_OpenRun":
        """From its checkpoint if there is one. The directory is closed where that fails."""
        torch.set_num_threads(task.resources.cpus)
        try:
            after_save = directory.send_checkpoint
            run = CandidateRun(directory.assets, directory.job, world, after_save=after_save)
        except BaseException:
            directory.close()
            raise
        return cls(task, directory, run)

    def next_report(self) -> RunReport:
        """Train to the next evaluation; at the end, write the student where it is kept."""
        report, task = self.run.next_report(), self.task
        if report.done and task.output is not None:
            with self._output(task.output) as here:
                write_finished(
                    self.run,
                    report,
                    dtype=task.dtype,
                    output=here,
                    from_trial=isinstance(task, TrialTask),
                )
        return report

    def _output(self, target: Path) -> contextlib.AbstractContextManager[Path]:
        """Where the student is written, by the first process of a run."""
        first = self.run.distillation.world.first
        return self.directory.output(target) if first else contextlib.nullcontext(target)


@ray.remote(max_restarts=0, max_task_retries=0)
class Slot:
    """Trains trials and full runs and does other tasks, one after the other."""

    def __init__(self, followers: Sequence[Any] = ()) -> None:
        """`followers` are the other slots of its group, where it is the first of one."""
        quiet_exits()
        disable_progress_bar()  # of transformers, whose bars would be lines of the driver
        self._leader = Leader(followers)
        self._open: _OpenRun | None = None
        self._writer: PieceWriter | None = None
        self._gauges = RunGauges()

    def __repr__(self) -> str:
        return ray.get_runtime_context().get_actor_name() or "slot"

    def next_report(self, task: TrialTask) -> RunReport | WorkerFailure:
        """Train a trial to its next evaluation, or say why it failed.

        A trial that the slot is in goes on where it is; another one is begun, or goes on from its
        checkpoint.
        """
        report = self._together(task, to_the_end=False)
        if isinstance(report, RunReport) and report.done:
            self.leave()
        return report

    def train(self, task: WorkerTask) -> WorkerFailure | None:
        """Do a run from its beginning, or its checkpoint, to its end; returns why it failed, or
        None."""
        report = self._together(task, to_the_end=True)
        if isinstance(report, WorkerFailure):
            return report
        self.leave()
        return None

    def follow(
        self, task: WorkerTask, meeting: Meeting, *, to_the_end: bool
    ) -> WorkerFailure | None:
        """Do this process's part of what the first slot of the group does; returns why it failed,
        or None."""

        def opened() -> _OpenRun:
            world = meeting.join(task.assets.device)
            label = f"{task.label} worker {meeting.rank}"
            return self._opened(task, label, lambda: (_directory(task), world))

        report = _reported(opened, _nothing, to_the_end=to_the_end)
        if isinstance(report, WorkerFailure):
            return report
        if report.done:
            self.leave()
        return None

    def _together(self, task: WorkerTask, *, to_the_end: bool) -> RunReport | WorkerFailure:
        """Train with the other slots of the group, if there are any."""
        try:
            directory = self._directory_of(task)
        except Exception as problem:
            return WorkerFailure.of(problem)

        def opened() -> _OpenRun:
            where = directory, self._leader.world(task.assets.device)
            return self._opened(task, task.label, lambda: where)

        # where this slot reads and writes, which the others do too
        shared = replace(task, assets=directory.assets, job=directory.job, access=None)
        return self._leader.do(
            task.label,
            lambda: _reported(opened, self._gauges.report, to_the_end=to_the_end),
            lambda method, meeting: method.remote(shared, meeting, to_the_end=to_the_end),
        )

    def _directory_of(self, task: WorkerTask) -> RunDirectory:
        """Where the run is done that this slot is in, or shall take up."""
        if self._open is not None and self._open.task.job == task.job:
            return self._open.directory
        self.leave()
        return _directory(task)

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
            self._gauges.end()
            self._leader.leave()
            self._open.directory.close()
            compiled = self._open.task.assets.training.compile
        self._open = self._writer = None
        if compiled:  # torch compiles a few models of a class, and runs the next ones as they are
            torch.compiler.reset()
        _tidy()

    def _opened(
        self, task: WorkerTask, label: str, where: Callable[[], tuple[RunDirectory, World]]
    ) -> _OpenRun:
        """The run of `task`, taken up if this slot is not in it, where `where` says."""
        if self._open is None or self._open.task.job != task.job:
            self.leave()
            _name_lines(label)
            self._gauges.begin(task.study, task.name, task.job.architecture)
            self._open = _OpenRun.of(task, *where())
        return self._open


def _directory(task: WorkerTask) -> RunDirectory:
    return RunDirectory(task.assets, task.job, access=task.access)


def _nothing(report: RunReport) -> None:
    """Of followers, whose run the first slot of the group tells of."""


def _reported(
    opened: Callable[[], _OpenRun], noted: Callable[[RunReport], None], *, to_the_end: bool
) -> RunReport | WorkerFailure:
    """The next report of a run, or its last, or why it failed; `noted` takes all of them."""
    try:
        with plain_lines():
            run = opened()
            report = run.next_report()
            noted(report)
            while to_the_end and not report.done:
                report = run.next_report()
                noted(report)
    except Exception as problem:
        return WorkerFailure.of(problem)
    return report


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
