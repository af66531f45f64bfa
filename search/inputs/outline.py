"""Outline of a study: its sizes, without its text and the weights of its teacher."""

import math
from dataclasses import dataclass, replace

import torch

from common.errors import SearchError
from distill.train import ResolvedTraining, check_workers
from search.cluster.fitting import Need
from search.cluster.trial_memory import TrialMemory
from search.config.study import SearchConfig
from search.inputs.members import Member
from search.per_layer.planning import PerLayerPlan
from workspace.models import ModelSource
from workspace.settings import LONGEST_BLOCK


@dataclass(frozen=True, kw_only=True)
class StudyOutline:
    """What a study takes of a machine follows from this alone."""

    config: SearchConfig
    """What the user set."""
    teacher: ModelSource
    """Of which the configuration alone is read."""
    members: tuple[Member, ...]
    """What is looked for, the largest student first."""
    per_layer: PerLayerPlan | None
    """Students whose layers differ; None where the layers of all are alike."""
    block: int
    """Tokens of a sequence."""
    training: ResolvedTraining
    """How students learn."""

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step."""
        return self.training.batch * self.block

    @property
    def memory(self) -> TrialMemory:
        """The memory of a process of a trial, by its architecture."""
        return self.memory_of(self.config.resources.workers)

    def memory_of(self, workers: int) -> TrialMemory:
        """The memory of a process of a run that so many train together, by its architecture."""
        narrow = self.training.precision == "bf16"
        held = torch.bfloat16 if narrow else self.teacher.dtype_in(self.config.teacher_precision)
        size = self.teacher.parameters * held.itemsize
        own = replace(self.training, batch=self.training.batch // workers)
        return TrialMemory(self.teacher.config, own, self.block, size, devices=workers)

    def need(self, memory: TrialMemory, *, on_gpu: bool) -> Need:
        """The memory that a run takes, of the student of all members that takes most."""
        spaces = [member.space for member in self.members]
        most = [] if self.per_layer is None else [self.per_layer.enclosing]
        return Need.of(spaces, memory, on_gpu=on_gpu, bounds=most)


def block_of(config: SearchConfig, teacher: ModelSource) -> int:
    """Tokens per sequence. Raises SearchError where teacher or short runs are too short for it."""
    block = config.block or min(LONGEST_BLOCK, teacher.positions)
    if block > teacher.positions:
        raise SearchError(
            f"--block is {block}, but the teacher has only {teacher.positions} positions"
        )
    if config.short_tokens < block:
        raise SearchError(
            f"--short_tokens is {config.short_tokens}, less than one block of {block} tokens"
        )
    training = _resolved(config, block, precision="fp32")
    if config.training.batch is not None:
        _require_a_step(config, training, block)
    _check_sharing(config, training)
    return block


def training_of(
    config: SearchConfig, block: int, *, precision: str, known_batch: int | None = None
) -> ResolvedTraining:
    """How students learn, in a `precision` that was resolved; `known_batch` is that of a study that
    goes on. Raises SearchError for short runs of less than a step."""
    training = _resolved(config, block, precision=precision, known_batch=known_batch)
    _require_a_step(config, training, block)
    _check_sharing(config, training)
    return training


def _resolved(
    config: SearchConfig, block: int, *, precision: str, known_batch: int | None = None
) -> ResolvedTraining:
    """With a default batch that the processes of every run share evenly."""
    return config.training.resolved(
        config.full_tokens,
        block,
        precision=precision,
        known_batch=known_batch,
        workers=math.lcm(config.resources.workers, config.workers_of_full_runs),
    )


def _check_sharing(config: SearchConfig, training: ResolvedTraining) -> None:
    """Raises DistillError for settings that the processes of a run cannot train with together."""
    for workers in {config.resources.workers, config.workers_of_full_runs}:
        check_workers(training, workers)


def _require_a_step(config: SearchConfig, training: ResolvedTraining, block: int) -> None:
    """Raises SearchError for short runs of less than an optimiser step."""
    step = training.batch * block
    if config.short_tokens < step:
        raise SearchError(
            f"--short_tokens is {config.short_tokens}, less than one step of {step} tokens; "
            + training.longer_or_fewer("it", step, block)
        )
