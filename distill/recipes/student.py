"""Student runs: two models of the user's own, from the first step to the written checkpoint.

Everything is named by paths and values, so that any process can take a run up.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.files import write_directory_atomically
from distill.backend.loading import load
from distill.backend.parallel import ALONE, World
from distill.loss.settings import StateSettings
from distill.recipes.assets import Assets
from distill.recipes.callbacks import RunCallbacks
from distill.recipes.reports import RunReport, RunResult
from distill.recipes.resumable import ResumableRun
from distill.train.export import write_model
from distill.train.limits import RunLimits
from distill.train.metrics import MetricLog
from distill.train.trainer import Distillation, TrainingData

MODEL = "model"
"""Folder of the written checkpoint in the directory of a finished run."""


@dataclass(frozen=True, kw_only=True)
class StudentRun:
    """One student, what it learns from, and where everything goes."""

    student: Path
    """Checkpoint that the run starts from."""
    assets: Assets
    """What the run reads."""
    limits: RunLimits
    """How long it is, how often it is evaluated, and where it is kept."""
    plateau: int | None = None
    """End after so many evaluations in a row without a better KL; None: never early."""
    output: Path
    """Directory of the written student and its `RunResult`."""
    dtype: str
    """Type in which the student is written, as torch names it."""
    states: StateSettings | None = None
    """How its hidden states are matched with the teacher's; None: they are not."""
    log: Path | None = None
    """Directory of metrics.jsonl and TensorBoard files."""
    wandb: str | None = None
    """Project at Weights & Biases that the metrics are sent to as well."""
    log_to: tuple[str, ...] = ()
    """Trackers that they are sent to besides."""
    teacher_device: str | None = None
    """Device of a teacher beside the student; by default the student's."""

    def train(
        self,
        world: World = ALONE,
        device: str = "cpu",
        *,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train to the end, from the checkpoint where there is one, and write the student.

        All processes of `world` must call it, each with its own `device`. `before_save` may refuse
        a checkpoint by an exception. Raises what `Distillation` raises.
        """
        place: Any = torch.device(device)
        log = None
        if self.log is not None and world.first:
            name = self.output.parent.name
            log = MetricLog(self.log, self.wandb, name, log_to=self.log_to)

        def start() -> Distillation:
            student: Any = load(self.student, torch.float32)
            return Distillation(
                student.to(place),
                replace(self.data(place), hidden_states=self.states),
                training=self.assets.training,
                tokens=self.limits.tokens,
                world=world,
            )

        report = None
        try:
            run = ResumableRun(
                start,
                self.limits,
                selection=self.assets.held_out(),
                callbacks=RunCallbacks(log, before_save),
                plateau=self.plateau,
            )
            report = run.result()
            while not report.done:
                report = run.next_report()
        finally:
            if log is not None:
                log.close(finished=report is not None and report.done)
        write_finished(run, report, dtype=self.dtype, output=self.output)

    def data(self, device: torch.device) -> TrainingData:
        """What a process trains on whose student is on `device`."""
        return self.assets.training_data(
            states=self.states is not None, teacher_device=self.teacher_device or device
        )


def write_finished(
    run: ResumableRun, report: RunReport, *, dtype: str, output: Path, from_trial: bool = False
) -> None:
    """Write the student of a finished run as a stock checkpoint, with its `RunResult` beside it.

    The weights are rounded to `dtype`, as torch names it. `report` is the last one of the run;
    `from_trial` says that it is a trial's. All processes of the run must call it; the first writes.
    """
    selection = run.selection or run.evaluate()
    block = run.held_out.blocks[0]
    weights, answers = run.distillation.as_written(getattr(torch, dtype), block)
    if not run.distillation.world.first:
        return
    result = RunResult.of(report, selection, answers=answers, from_trial=from_trial)

    def fill(directory: Path) -> None:
        write_model(run.distillation.student, weights, directory / MODEL)
        result.write(directory)

    write_directory_atomically(output, fill)
