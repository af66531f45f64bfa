"""Plan of a study: what it runs and takes, from its settings and the teacher's configuration."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from common.errors import EspalierError, SearchError, require
from common.files import require_space
from common.progress import counted
from distill.targets import TargetFormat
from distill.train import check_optimizer
from pruning import student_config
from search.cluster.cluster import of_full_runs
from search.cluster.fitting import Need, fitted
from search.cluster.resources import Resources
from search.cluster.trial_memory import GB, TrialMemory
from search.config.study import SearchConfig
from search.finals.outlook import shown_evidence
from search.inputs.members import budget_note
from search.inputs.outline import StudyOutline
from search.needs.device import PlannedDevice
from search.needs.memory import MemoryParts
from search.needs.plan import Plan
from search.needs.random_teacher import RandomTeacher
from search.needs.tables import shown_time
from search.plan.disk import StudyDisk
from search.plan.fit import Fit
from search.plan.reading import free_memory, outlined, resources_of
from search.plan.speed import NOT_TIMED, Speed
from search.plan.study_work import StudyWork
from search.plan.teacher import (
    CORRECTION,
    READING,
    correction_parts,
    planned_targets,
    reading_parts,
    require_reading,
)
from search.plan.timing import RandomRun, some_layers
from workspace.corpus_and_targets import TargetNeeds

RUN, FULL_RUN = "a run", "a full run"


@dataclass(frozen=True)
class StudyPlan:
    """What a study takes of a device."""

    outline: StudyOutline
    """Sizes of the study."""
    device: PlannedDevice
    """What it is planned for."""

    @classmethod
    def of(cls, config: SearchConfig) -> "StudyPlan":
        """Raises SearchError, PruningError or DistillError where something cannot be used."""
        device = PlannedDevice.of(config.device, config.plan_for)
        return cls(outlined(config, device), device)

    @cached_property
    def problem(self) -> EspalierError | None:
        """What does not fit or is missing, with what to change; None where all is well."""
        try:
            for fit in self._fits:
                fit.require()
            stated = self.outline.config.resources.memory_gb or 0.0
            require(
                stated * GB <= self._free,
                f"--resources.memory_gb is {stated:g}, above the {self._free / GB:,.1f} GB that "
                "are free; give less, or a larger device",
            )
            if not self.outline.config.spread:
                require_reading(self.moments[READING], self._free)
            if self.device.here:
                workspace = self.outline.config.workspace.expanduser().absolute()
                require_space(workspace, int(self.disk.total), error=SearchError)
                check_optimizer(self.outline.config.training)
        except EspalierError as problem:
            return problem
        return None

    def plan(self) -> Plan:
        """The plan for people; a device is timed where it is here and what it runs fits."""
        outline, config, teacher = self.outline, self.outline.config, self.outline.teacher
        work = replace(self._work, speed=self.speed)
        few, every = work.fewest_trials, work.trials
        concurrent = self._resources.concurrent
        return Plan(
            opening=[
                f"teacher: {outline.members[0].space.teacher}, {teacher.parameters:,} parameters",
                *outline.members[0].space.describe(),
                *(outline.per_layer.describe() if outline.per_layer else ()),
                *budget_note(outline.config),
                *(member.line() for member in outline.members),
                f"training: {counted(outline.training.batch, 'sequence')} of {outline.block} "
                f"tokens a step, {outline.training.forward_batch} at once, "
                f"{outline.training.precision}",
                f"planned for: {self.device}; {concurrent} run{'s' * (concurrent > 1)} at once"
                + self._of_processes,
            ],
            work=work.parts(),
            remarks=[
                f"trials by how many stop early: {few.tokens:,.0f} to {every.tokens:,.0f} tokens"
                + _lasting(few.seconds, every.seconds),
                f"evidence {shown_evidence(work.last[0].stage)}",
                *(f"after the trials at most {last.describe()}" for last in work.last),
                work.speed.basis,
            ],
            moments=self.moments,
            disk=self.disk.parts,
            notes=[
                "the text is not read: it is taken to have the tokens that are read, "
                f"{config.splits.selection_tokens:,} for selection and "
                f"{config.splits.test_tokens:,} for test",
                "students are counted as the uniform shrink, memory as the largest of them",
                "planned from the start: what a study of this name has done is not looked up",
                "not counted: packing of the text, cutting, the report"
                + (", the programme that combines blocks" if outline.per_layer else "")
                + (", lm-eval tasks" if config.task_names else ""),
                *(["the nodes of --address were not asked"] if config.address else []),
            ],
            problem=self.problem,
        )

    @property
    def _of_processes(self) -> str:
        """How many train a run together, where that is not one."""
        trial, full = self._resources.workers, self._full_resources.workers
        if trial == full == 1:
            return ""
        return f", trials on {trial} and full runs on {full} processes"

    @cached_property
    def moments(self) -> dict[str, MemoryParts]:
        """Memory of a device by what it does at once."""
        outline, teacher = self.outline, self.outline.teacher
        found = {RUN: self._run_parts(outline.memory)}
        if outline.config.workers_of_full_runs != outline.config.resources.workers:
            found[FULL_RUN] = self._run_parts(self._memory_of_full_runs)
        if outline.config.correction.tokens:
            found[CORRECTION] = self._correction_parts(outline.memory_of(1))
        found[READING] = reading_parts(
            teacher,
            outline.config.teacher_precision,
            block=outline.block,
            on_gpu=self.device.on_gpu,
        )
        return found

    @cached_property
    def disk(self) -> StudyDisk:
        """Disk of the workspace."""
        outline = self.outline
        last = self._work.last[-1]
        concurrent = self._resources.concurrent
        return StudyDisk.of(outline, last, targets=self._targets[1], concurrent=concurrent)

    @cached_property
    def _targets(self) -> tuple[TargetFormat | None, float]:
        """Format of the training targets, and bytes of those of all splits. Raises DistillError
        where they do not fit --targets_gb."""
        config = self.outline.config
        needs = TargetNeeds(
            training=self.outline.training,
            vocabulary=self.outline.teacher.config.vocab_size,
            tokens=max(config.full_tokens, config.scratch_tokens or 0),
            limit_gb=config.targets_gb,
            seed=config.seed,
        )
        return planned_targets(needs, config.splits, block=self.outline.block)

    @cached_property
    def _free(self) -> float:
        """Bytes that runs may take of a device."""
        free = free_memory(self.outline.config, self.device)
        return free.gpu if self.device.on_gpu else free.memory

    @cached_property
    def _resources(self) -> Resources:
        """Runs at once, by processors and memory."""
        config = self.outline.config
        free = free_memory(config, self.device)
        resources = resources_of(config, self.device)
        found, _ = fitted(resources, self.need, free=free, config=config.resources)
        return found

    @cached_property
    def _full_resources(self) -> Resources:
        """The same of full runs, which may have other numbers of processes."""
        config = self.outline.config
        workers = config.workers_of_full_runs
        if workers == self._resources.workers:
            return self._resources
        free = free_memory(config, self.device)
        resources = of_full_runs(resources_of(config, self.device), workers)
        need = self.outline.need(self.outline.memory_of(workers), on_gpu=self.device.on_gpu)
        found, _ = fitted(resources, need, free=free, config=config.resources)
        return found

    @cached_property
    def need(self) -> Need:
        """The memory of the run that takes most."""
        return self.outline.need(self.outline.memory, on_gpu=self.device.on_gpu)

    @property
    def _fits(self) -> list[Fit]:
        """What must fit a device, with other settings if need be."""
        config, memory = self.outline.config, self.outline.memory
        run = Fit(
            what=f"a run of {self.need.what}",
            memory=memory,
            parts_of=self._run_parts,
            free=self._free,
            gpu=self.device.on_gpu,
            last_resort="give --resources.workers {count} (an estimate), or a smaller "
            "--budget.parameters",
        )
        full = replace(
            run,
            what="a full run of the same",
            memory=self._memory_of_full_runs,
            last_resort="give --full_workers {count} (an estimate), or a smaller "
            "--budget.parameters",
        )
        correction = replace(
            run,
            what=CORRECTION,
            memory=self.outline.memory_of(1),
            parts_of=self._correction_parts,
            last_resort="it has one device, where {count} with its state in shards would hold it "
            "(an estimate); leave --correction.tokens out",
        )
        # What the user says of a run takes the place of its estimate.
        fits = [run, full] if config.resources.memory_gb is None else []
        return [*fits, correction] if config.correction.tokens else fits

    @property
    def _memory_of_full_runs(self) -> TrialMemory:
        return self.outline.memory_of(self.outline.config.workers_of_full_runs)

    def _run_parts(self, memory: TrialMemory) -> MemoryParts:
        """Of the run that takes most."""
        need = self.outline.need(memory, on_gpu=self.device.on_gpu)
        assert need.largest is not None
        return memory.parts(*need.largest, on_gpu=self.device.on_gpu)

    def _correction_parts(self, memory: TrialMemory) -> MemoryParts:
        outline = self.outline
        correction = outline.config.correction
        return correction_parts(outline.teacher, correction, memory, on_gpu=self.device.on_gpu)

    @cached_property
    def _work(self) -> StudyWork:
        """What runs, without times."""
        return StudyWork(self.outline, self._resources, self._full_resources)

    @cached_property
    def speed(self) -> Speed:
        """How fast this device is, where it is here and holds what is timed."""
        if self.problem is not None and self.device.flops is None:
            return NOT_TIMED
        outline, teacher = self.outline, self.outline.teacher
        shape, device = self._work.shapes[0], torch.device(self.device.type)
        shares = outline.config.importance.settings.shares
        kept = some_layers(teacher.config, shape.layers, shares)
        dtype = teacher.dtype_in(outline.config.teacher_precision)
        run = RandomRun(
            student=student_config(teacher.config, shape, kept),
            teacher=RandomTeacher(teacher.config, dtype, device),
            training=outline.training,
            block=outline.block,
            targets=self._targets[0],
            live=self._work.live,
        )
        cpus, alone = outline.config.resources.cpus, self._work.readers == 1
        return Speed.of(
            run,
            self.device,
            cpus=cpus,
            reading_cpus=torch.get_num_threads() if alone else cpus,
            weights=teacher.has_weights,
        )


def _lasting(least: float | None, most: float | None) -> str:
    """Seconds in words; nothing where they are not known."""
    if least is None or most is None:
        return ""
    return f", {' to '.join(dict.fromkeys((shown_time(least), shown_time(most))))}"
