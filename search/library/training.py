"""Training of a block library on all slots of a study: groups of layers, each in a task of its own.

Everything of it lies in one working folder until the library is whole: which layers go together,
checkpoints, and what is trained. Whatever is killed, the next start goes on there.
"""

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from common.errors import require
from common.files import free_bytes, write_directory_atomically, write_file_atomically
from common.progress import Progress, Throttle, duration, tell
from distill import Corpus
from distill.targets import shown_bytes
from distill.train import RunLimits
from pruning import (
    ENERGIES_FILE,
    ORDERING_FILE,
    Architecture,
    Checkpoint,
    architecture_of,
    parameter_count,
)
from pruning.slicing import ANY_SIZE, write_index, write_trained
from search.library.nested_training import (
    REPORT,
    BlockTraining,
    TrainingJob,
    TrainingPlan,
    folder_of,
)
from search.library.slots import Slots, groups_of
from search.space.variants import NOTHING, loadable
from search.workers.access import WorkspaceAccess
from search.workers.candidate import Job
from search.workers.staging import RunDirectory

LOGGER = logging.getLogger(__name__)
JOBS = "jobs.json"
ERRORS = "errors.json"
"""In a library: errors of its blocks before and after."""
FORMER = {"course": "schedule"}
"""Names that a library of an earlier version has."""
LINE_SECONDS = 10.0
FP32, STATE_BYTES, STEP_BYTES = 4, 12, 4
"""Of a parameter: itself, with AdamW's moments, and its gradient."""
STATE_SHARE = 0.6
"""Of a slot's memory, for weights, moments and gradients; the rest is for what a step computes."""


@dataclass(frozen=True)
class BlockError:
    """Error of one attention or FFN of a library, beside the teacher's other sub-block."""

    layer: int
    """Of the teacher, counted from 0."""
    part: str
    """The size, as `size_name` has it."""
    before: float
    """Normalised error of the layer's output before training: 1 is that of silence."""
    after: float
    """The same after it."""
    tokens: int
    """That the layer was trained on, in the run of its schedule."""
    schedule: str
    """Name of what was trained together with it."""

    @property
    def used(self) -> bool:
        """Whether students take what was trained, since it came closer to the teacher."""
        return self.after < self.before


def train_library(plan: TrainingPlan, directory: Path, *, slots: Slots) -> list[BlockError]:
    """The library in `directory`, trained now or before; returns the errors of its blocks.

    Ray must be up. Raises SearchError where the disk is too small, SearchStopped where tasks fail.
    """
    trainer = _Trainer(plan, directory, slots)
    if not directory.exists():
        trainer.train()
    shutil.rmtree(trainer.folder, ignore_errors=True)
    return [BlockError(**row) for row in _rows_of(directory / ERRORS)]


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """Of a JSON file; a schedule was called a course before."""
    rows = json.loads(path.read_text("utf-8"))
    return [{FORMER.get(name, name): value for name, value in row.items()} for row in rows]


def _train(
    plan: TrainingPlan, job: TrainingJob, folder: Path, access: WorkspaceAccess | None
) -> None:
    """Train some layers, and write them to the working folder."""
    limits = RunLimits(plan.settings.tokens, 1, checkpoint_of(folder, job), plan.checkpoint_seconds)
    whole = architecture_of(Checkpoint(plan.assets.sorted_teacher).config)
    run = RunDirectory(plan.assets, Job(job.name, whole, limits), access=access)
    try:
        checkpoint = run.job.limits.checkpoint
        assert checkpoint is not None, "it is where the limits above say"
        training = BlockTraining(replace(plan, assets=run.assets), job)
        training.train(checkpoint, run.send_checkpoint)
        with run.output(folder / job.name) as output:
            training.write(output)
    finally:
        run.close()


def checkpoint_of(folder: Path, job: TrainingJob) -> Path:
    """Where a job keeps its state while it goes on."""
    return folder / f"checkpoint-{job.name}"


class _Trainer:
    """The tasks of one library, and what is made of their results."""

    def __init__(self, plan: TrainingPlan, directory: Path, slots: Slots):
        self.plan, self.directory, self.slots = plan, directory, slots
        self.folder = directory.with_name(f"{directory.name}-training")
        self.source = Checkpoint(plan.assets.sorted_teacher)
        self.block = int(Corpus(plan.assets.corpus).block)
        self.line_due = Throttle(LINE_SECONDS)

    def train(self) -> None:
        """Train what is not trained yet, and write the library."""
        jobs = self._jobs()
        self._require_space(jobs)
        waiting = [job for job in jobs if not (self.folder / job.name).exists()]
        total = sum(self._steps(job) * len(job.layers) for job in jobs)
        progress = Progress(total, done=self._done(jobs))
        pool = self.slots.pool("block library", failed="the block library could not be trained")
        for job, _ in pool.called(
            _train,
            waiting,
            arguments=lambda job: (self.plan, job, self.folder, self.slots.access),
            meanwhile=lambda: self._log_progress(jobs, progress),
        ):
            shutil.rmtree(checkpoint_of(self.folder, job), ignore_errors=True)
        write_directory_atomically(self.directory, lambda aside: self._fill(aside, jobs))
        LOGGER.info(f"block library: {self.directory.name} after {duration(progress.seconds)}")

    def _step_tokens(self, job: TrainingJob) -> int:
        """Tokens of an optimiser step."""
        settings = self.plan.settings_of(job.schedule)
        resolved = settings.training.resolved(
            settings.tokens, self.block, precision=settings.precision
        )
        return resolved.batch * self.block

    def _steps(self, job: TrainingJob) -> int:
        """Optimiser steps of a job."""
        return max(1, self.plan.settings_of(job.schedule).tokens // self._step_tokens(job))

    def _jobs(self) -> list[TrainingJob]:
        """As the first start divided the layers, whatever slots there are now."""
        path = self.folder / JOBS
        if path.exists():
            rows = _rows_of(path)
            return [TrainingJob(tuple(row["layers"]), row["schedule"]) for row in rows]
        jobs = [
            TrainingJob(group, schedule)
            for schedule, layers in self.plan.schedules.items()
            for group in groups_of(layers, self._groups(layers))
        ]
        self.folder.mkdir(exist_ok=True)
        write_file_atomically(path, json.dumps([asdict(job) for job in jobs]) + "\n")
        return jobs

    def _groups(self, layers: Sequence[int]) -> int:
        """As many as there are slots; more where a slot's memory takes fewer layers, and one where
        the model type ties layers to their places."""
        if loadable(self.source.config, layers[:1]) != layers[:1]:
            return 1
        left = STATE_SHARE * self._slot_memory() - self._whole_bytes
        fitting = max(1.0, left / (self._layer_parameters * (STATE_BYTES + STEP_BYTES)))
        return max(self.slots.room.limit, math.ceil(len(layers) / fitting))

    def _slot_memory(self) -> float:
        """Bytes of a slot, of its GPU on cuda; infinite where this process cannot know."""
        resources = self.slots.resources
        if resources.gpus and torch.cuda.is_available():
            whole = torch.cuda.get_device_properties(0).total_memory
            return float(whole * min(1.0, resources.gpus))
        return math.inf if resources.gpus or not resources.memory else float(resources.memory)

    @property
    def _whole_bytes(self) -> int:
        """Of the sorted teacher."""
        return sum(self.source.bytes_by_type.values())

    @cached_property
    def _layer_parameters(self) -> float:
        """Of a layer, on average."""
        config = self.source.config
        whole = architecture_of(config)
        outside = parameter_count(config, Architecture.of_blocks(whole.hidden, [NOTHING]), kept=[0])
        return (parameter_count(config, whole) - outside) / whole.layers

    def _require_space(self, jobs: Sequence[TrainingJob]) -> None:
        """Raises SearchError where the disk has not enough left for the library."""
        libraries = len({job.schedule for job in jobs})
        layers = sum(len(job.layers) for job in jobs) * self._layer_parameters
        largest = max(len(job.layers) for job in jobs) * self._layer_parameters
        running = min(self.slots.room.limit, len(jobs)) + 1  # one is replaced by its next
        kept = libraries * self._whole_bytes + layers * FP32
        needed = kept + layers * FP32 + running * largest * STATE_BYTES
        LOGGER.info(
            f"block library: {len(jobs)} runs, {self.plan.settings.tokens:,} tokens for a layer; "
            f"at most {needed / 1e6:,.0f} MB of disk, {kept / 1e6:,.0f} MB of them for good"
        )
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = free_bytes(self.directory.parent)
        require(
            free >= needed - there,
            f"the block library needs up to {shown_bytes(int(needed))} in {self.directory.parent}, "
            f"which has {shown_bytes(free)} left; free some, choose another --workspace, or set "
            "--per_layer.tokens 0, which trains none",
        )

    def _done(self, jobs: Sequence[TrainingJob]) -> int:
        """Optimiser steps of all layers so far, those of a stopped layer too."""
        return sum(self._steps_of(job) * len(job.layers) for job in jobs)

    def _steps_of(self, job: TrainingJob) -> int:
        if (self.folder / job.name).exists():
            return self._steps(job)
        try:
            meta = json.loads((checkpoint_of(self.folder, job) / "meta.json").read_text("utf-8"))
            return int(meta["step"])
        except (OSError, ValueError, KeyError):  # not there yet, or just being replaced
            return 0

    def _log_progress(self, jobs: Sequence[TrainingJob], progress: Progress) -> None:
        done = self._done(jobs)
        tell(LOGGER, work="block library", done=100 * done / progress.total, total=100.0, unit="%")
        if progress.before < done < progress.total and self.line_due():
            share, left = done / progress.total, duration(progress.left(done))
            LOGGER.info(f"block library: {share:.0%} trained; about {left} left of it")

    def _fill(self, aside: Path, jobs: Sequence[TrainingJob]) -> None:
        """Write the library to a directory that is there."""
        teacher = self.plan.assets.sorted_teacher
        names = (ORDERING_FILE, ENERGIES_FILE)
        beside = {name: teacher / name for name in names if (teacher / name).exists()}
        folders = {}
        for schedule in self.plan.schedules:
            layers: dict[int, tuple[Checkpoint, int]] = {}
            for job in (each for each in jobs if each.schedule == schedule):
                trained = Checkpoint(self.folder / job.name)
                layers |= {layer: (trained, index) for index, layer in enumerate(job.layers)}
            folder = folders[schedule or ANY_SIZE] = folder_of(schedule)
            (aside / folder).mkdir()
            write_trained(self.source, layers, aside / folder, beside=beside)
        errors = [error for job in jobs for error in self._errors(job)]
        untrained: dict[int, list[str]] = {}
        for error in errors:
            if not error.used:
                untrained.setdefault(error.layer, []).append(error.part)
        write_index(aside, folders, untrained)
        rows = json.dumps([asdict(error) for error in errors], indent=1)
        (aside / ERRORS).write_text(rows + "\n", encoding="utf-8")

    def _errors(self, job: TrainingJob) -> Iterator[BlockError]:
        report = json.loads((self.folder / job.name / REPORT).read_text("utf-8"))
        first, last = report["curve"][0]["errors"], report["curve"][-1]["errors"]
        for layer in job.layers:
            steps = report["stopped"].get(str(layer), self._steps(job))
            for part, before in first[str(layer)].items():
                tokens = steps * self._step_tokens(job)
                after = last[str(layer)][part]
                yield BlockError(layer, part, before, after, tokens, folder_of(job.schedule))
