"""Plan of a distillation: what it runs and takes, from the configurations of both models."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from common.errors import EspalierError, SearchError, require
from common.files import require_space
from common.given_paths import trial_of
from common.progress import counted
from distill.loss import CROSS_ENTROPY
from distill.targets import TargetFormat
from distill.train import LIVE, ResolvedTraining, check_optimizer
from experiments.distill.config import DistillConfig
from experiments.distill.inputs import block_of
from pruning import architecture_of
from pruning.families import forward_flops, training_flops
from search.cluster import TrialMemory
from search.needs import MemoryParts, Plan, PlannedDevice, RandomTeacher, Work
from search.plan import (
    CORRECTION,
    MOMENTS_BYTES,
    NOT_TIMED,
    READING,
    Fit,
    RandomRun,
    Speed,
    correction_parts,
    planned_targets,
    reading_parts,
    require_reading,
)
from workspace.corpus_and_targets import TargetNeeds
from workspace.models import ModelSource

RUN = "the run"


@dataclass(frozen=True)
class DistillPlan:
    """What a distillation takes of a device."""

    config: DistillConfig
    """What the user set."""
    device: PlannedDevice
    """What it is planned for."""
    teacher: ModelSource
    """Of which the configuration alone is read."""
    student: ModelSource
    """Likewise."""

    @classmethod
    def of(cls, config: DistillConfig) -> "DistillPlan":
        """Raises SearchError, PruningError or DistillError where something cannot be used."""
        require(
            trial_of(config.student) is None,
            f"--student is {config.student}, a trial, which is not cut for a plan; give the folder "
            "of a model with the trial's sizes",
        )
        return cls(
            config,
            PlannedDevice.of(config.device, config.plan_for),
            ModelSource.described(config.teacher),
            ModelSource.described(config.student, role="student"),
        )

    def plan(self) -> Plan:
        """The plan for people; a device is timed where it is here and what it runs fits."""
        training, workers = self.training, self.config.workers.count
        whole, own = self.teacher.parameters, self.student.parameters
        speed = self._speed()
        others = [
            "the text is not read: it is taken to have the tokens that are read, "
            f"{self.config.splits.selection_tokens:,} for selection and "
            f"{self.config.splits.test_tokens:,} for test",
            "planned from the start: what --output has of an earlier one is not looked up",
            "not counted: packing of the text, lm-eval tasks"
            + (", the warm start" if self.config.warm_start.tokens else "")
            + (", hidden states" if self.config.match_states else ""),
        ]
        if workers > 1:
            others.append(
                f"weights, gradients and optimiser are shared by {workers} workers; what is "
                "gathered for a layer is not counted"
            )
        return Plan(
            opening=[
                f"teacher: {whole:,} parameters; student: {own:,} ({own / whole:.1%})",
                f"training: {counted(training.batch, 'sequence')} of {self.block} tokens a step, "
                f"{self._of_a_worker.forward_batch} at once"
                + (f" on each of {workers} workers" if workers > 1 else "")
                + f", {training.precision}",
                f"planned for: {self.device}",
            ],
            work=list(self._work(speed)),
            remarks=[speed.basis],
            moments=self.moments,
            disk=self.disk,
            notes=others,
            problem=self.problem,
        )

    @property
    def block(self) -> int:
        """Tokens of a sequence."""
        return block_of(self.config, teacher=self.teacher, student=self.student)

    @cached_property
    def training(self) -> ResolvedTraining:
        """How the student learns. Raises SearchError for a run of less than a step."""
        config = self.config
        training = config.training.resolved(
            config.tokens,
            self.block,
            precision=self.device.precision(config.training.precision),
            workers=config.workers.count,
        )
        step = training.batch * self.block
        require(
            config.tokens >= step,
            f"--tokens is {config.tokens}, less than one step of {step} tokens; "
            + training.longer_or_fewer("it", step, self.block),
        )
        return training

    @cached_property
    def moments(self) -> dict[str, MemoryParts]:
        """Memory of a device by what it does at once."""
        found = {RUN: self._run_parts(self._memory)}
        if self.config.correction.tokens:
            found[CORRECTION] = self._correction_parts(self._memory_of_one)
        found[READING] = reading_parts(
            self.teacher,
            self.config.teacher_precision,
            block=self.block,
            on_gpu=self.device.on_gpu,
            sequences=1,
        )
        return found

    @cached_property
    def disk(self) -> dict[str, float]:
        """Bytes by part."""
        kept = self.student.parameters * self.student.dtype.itemsize
        teacher = self.teacher.parameters * self.teacher.dtype.itemsize
        corrected = bool(self.config.correction.tokens)
        largest = max(self.student.parameters, self.teacher.parameters * corrected)
        parts = {
            "targets": self._targets[1],
            "text model": teacher * (self.teacher.part is not None),
            "corrected teacher": teacher * corrected,
            "checkpoints": 2.0 * largest * MOMENTS_BYTES,
            "students": 2.0 * kept,
        }
        return {name: size for name, size in parts.items() if size}

    @cached_property
    def problem(self) -> EspalierError | None:
        """What does not fit or is missing, with what to change; None where all is well."""
        try:
            for fit in self._fits:
                fit.require()
            require_reading(self.moments[READING], self.device.memory)
            if self.device.here:
                needed = int(sum(self.disk.values()))
                require_space(self.config.output.absolute(), needed, error=SearchError)
                check_optimizer(self.config.training)
        except EspalierError as problem:
            return problem
        return None

    @property
    def _live(self) -> bool:
        return self.training.targets == LIVE and self.training.loss != CROSS_ENTROPY

    @property
    def _of_a_worker(self) -> ResolvedTraining:
        return replace(
            self.training, batch=max(1, self.training.batch // self.config.workers.count)
        )

    @property
    def _memory(self) -> TrialMemory:
        """Of a worker; a teacher that has a device of its own is not on the student's."""
        narrow = torch.bfloat16 if self.training.precision == "bf16" else None
        held = narrow or self.teacher.dtype_in(self.config.teacher_precision)
        beside = self.config.teacher_device in (None, self.device.type)
        size = self.teacher.parameters * held.itemsize * beside
        count = self.config.workers.count
        return TrialMemory(self.student.config, self._of_a_worker, self.block, size, devices=count)

    @property
    def _memory_of_one(self) -> TrialMemory:
        """Where one process has the whole batch."""
        return replace(self._memory, training=self.training, devices=1)

    def _run_parts(self, memory: TrialMemory) -> MemoryParts:
        shape = architecture_of(self.student.config)
        return memory.parts(shape, self.student.parameters, on_gpu=self.device.on_gpu)

    def _correction_parts(self, memory: TrialMemory) -> MemoryParts:
        settings = self.config.correction
        return correction_parts(self.teacher, settings, memory, on_gpu=self.device.on_gpu)

    @property
    def _fits(self) -> list[Fit]:
        free, gpu = self.device.memory, self.device.on_gpu
        run = Fit(
            what=f"the run of {self.student.parameters:,} parameters",
            memory=self._memory,
            parts_of=self._run_parts,
            free=free,
            gpu=gpu,
            last_resort="give --workers.count {count} (an estimate)",
        )
        if not self.config.correction.tokens:
            return [run]
        correction = replace(
            run,
            what=CORRECTION,
            memory=self._memory_of_one,
            parts_of=self._correction_parts,
            last_resort="it has one device, where {count} would hold it; leave --correction.tokens "
            "out",
        )
        return [run, correction]

    @cached_property
    def _targets(self) -> tuple[TargetFormat | None, float]:
        config = self.config
        range_tokens = config.range_steps * self.training.batch * self.block
        needs = TargetNeeds(
            training=self.training,
            vocabulary=min(self.teacher.config.vocab_size, self.student.config.vocab_size),
            tokens=max(config.tokens, range_tokens),
            limit_gb=config.targets_gb,
            seed=config.seed,
        )
        return planned_targets(needs, config.splits, block=self.block)

    def _speed(self) -> Speed:
        if self.problem is not None and self.device.flops is None:
            return NOT_TIMED
        dtype = self.teacher.dtype_in(self.config.teacher_precision)
        place = torch.device(self.device.type)
        run = RandomRun(
            student=self.student.config,
            teacher=RandomTeacher(self.teacher.config, dtype, place),
            training=self._of_a_worker,
            block=self.block,
            targets=self._targets[0],
            live=self._live,
        )
        every = torch.get_num_threads()
        return Speed.of(
            run,
            self.device,
            cpus=self.config.workers.cpus or every,
            reading_cpus=every,
            weights=self.teacher.has_weights,
        )

    def _work(self, speed: Speed) -> Iterator[Work]:
        """In the order in which it is done; workers are taken to share the time evenly."""
        config, workers = self.config, self.config.workers.count
        whole, own = architecture_of(self.teacher.config), architecture_of(self.student.config)
        read = float(forward_flops(self.teacher.config, whole, self.block))
        forward = float(forward_flops(self.student.config, own, self.block))
        if tokens := config.correction.tokens:
            flops = tokens * training_flops(self.teacher.config, whole, self.block)
            seconds = _times(flops, speed.training)
            yield Work(
                what=CORRECTION, runs=1, tokens=tokens, training_flops=flops, seconds=seconds
            )
        held_out = config.splits.selection_tokens + config.splits.test_tokens
        stored = config.tokens if self._targets[0] is not None else 0
        yield Work(
            what="the teacher's targets",
            runs=1,
            tokens=held_out + stored,
            forward_flops=read * (held_out + stored),
            seconds=_times(read * (held_out + stored), speed.answering),
        )
        evaluated = config.reports * config.splits.selection_tokens
        for what, tokens, scored in (
            ("range run", config.range_steps * self.training.batch * self.block, 0),
            ("distillation", config.tokens, evaluated),
        ):
            if tokens:
                trained = tokens * training_flops(self.student.config, own, self.block)
                rest = scored * forward + (tokens * read if self._live else 0.0)
                yield Work(
                    what=what,
                    runs=1,
                    tokens=tokens,
                    training_flops=trained,
                    forward_flops=rest,
                    seconds=_times((trained + rest) / workers, speed.training),
                )


def _times(flops: float, each: float | None) -> float | None:
    return None if each is None else flops * each
