"""Actors: Ray's worker processes for a trial and a full run, readable in Ray's dashboard.

Every trial starts a process that imports this module, so it does without Optuna (pandas is Ray's).
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.util.metrics import Gauge

from common.log import plain_lines
from common.signals import quiet_exits
from common.values import in_ascii
from distill.recipes import RunReport, write_finished
from search.cluster.ray_errors import WorkerFailure
from search.cluster.resources import Resources
from search.workers.access import WorkspaceAccess
from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.staging import RunDirectory

TASK = "task"
"""Key of the `TrialTask` in the settings that Ray Tune hands on."""
TAGS = ("study", "trial")


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """All that the worker of a run is given."""

    job: Job
    """The student to train."""
    assets: SearchAssets
    """What it is cut out of and learns from."""
    resources: Resources
    """What the worker gets of its node."""
    access: WorkspaceAccess | None = None
    """How it reaches a workspace that it may not see; None: it sees it."""
    dtype: str = "float32"
    """Type in which the student is written, as torch names it."""

    @property
    def name(self) -> str:
        """Readable name of the run."""
        return self.job.name


@dataclass(frozen=True, kw_only=True)
class TrialTask(WorkerTask):
    """All that the worker of a trial is given."""

    study: str
    """Name of the study, for metrics."""
    output: Path | None = None
    """Directory of the workspace for the student of a trial that comes to its end; None: it is not
    kept."""


class CandidateTrial(tune.Trainable):
    """One trial in a process of its own; each step is one report."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Resources that Ray reserves for the trial."""
        resources: Resources = config[TASK].resources
        wanted = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory}
        return tune.PlacementGroupFactory([{name: size for name, size in wanted.items() if size}])

    def setup(self, config: dict[str, Any]) -> None:
        """Take the task; the run is begun by the first step, whose failures are reported."""
        quiet_exits()
        self.task: TrialTask = config[TASK]
        self.directory: RunDirectory | None = None
        self.run: CandidateRun | None = None
        self.gauges = {
            name: Gauge(f"espalier_{name}", description=text, tag_keys=TAGS)
            for name, text in (
                ("kl", "forward KL to the teacher on the selection split, nats per token"),
                ("tokens", "tokens trained on"),
            )
        }

    def __repr__(self) -> str:
        return str(self.config[TASK].job)

    def step(self) -> dict[str, Any]:
        """Train to the next evaluation; a `RunReport` or a `WorkerFailure` as a dictionary."""
        task = self.task
        try:
            with plain_lines():
                if self.run is None or self.directory is None:
                    torch.set_num_threads(task.resources.cpus)
                    self.directory = RunDirectory(task.assets, task.job, access=task.access)
                    self.run = run_in(self.directory)
                report = self.run.next_report()
            if report.done and task.output is not None:
                with self.directory.output(task.output) as here:
                    write_finished(self.run, report, dtype=task.dtype, output=here, from_trial=True)
        except Exception as problem:
            return {**WorkerFailure.of(problem).to_dict(), "done": True}
        self._show(report)
        return report.to_dict()

    def _show(self, report: RunReport) -> None:
        """Put the report into the metrics of Ray's dashboard."""
        tags = {"study": in_ascii(self.task.study), "trial": in_ascii(self.task.name)}
        self.gauges["kl"].set(report.curve[-1].kl, tags)
        self.gauges["tokens"].set(report.tokens, tags)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Runs keep their own checkpoints, by origin."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Runs find their own checkpoints, by origin."""

    def cleanup(self) -> None:
        """At the end of the trial, also of one that is stopped early."""
        if self.directory is not None:
            self.directory.close()


def run_in(directory: RunDirectory) -> CandidateRun:
    """The run of a directory, from its checkpoint if there is one."""
    return CandidateRun(directory.assets, directory.job, after_save=directory.send_checkpoint)


@ray.remote(max_restarts=0)
class FullTrainer:
    """One full run in a process of its own, readable in Ray's dashboard."""

    def __init__(self, task: WorkerTask):
        quiet_exits()
        self.task = task

    def __repr__(self) -> str:
        return self.task.name

    def train(self, output: Path) -> WorkerFailure | None:
        """Train to the end and write the student to `output` of the workspace; returns why it
        failed, or None."""
        task = self.task
        try:
            torch.set_num_threads(task.resources.cpus)
            with (
                plain_lines(),
                contextlib.closing(
                    RunDirectory(task.assets, task.job, access=task.access)
                ) as directory,
            ):
                run = run_in(directory)
                report = run.next_report()
                while not report.done:
                    report = run.next_report()
                with directory.output(output) as here:
                    write_finished(run, report, dtype=task.dtype, output=here)
        except Exception as problem:
            return WorkerFailure.of(problem)
        return None
