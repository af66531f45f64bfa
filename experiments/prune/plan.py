"""Plan of a cut: what it reads and takes, from the teacher's configuration alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from common.errors import EspalierError, PruningError, require
from common.files import require_space
from distill.targets import shown_bytes
from experiments.prune.config import PruneConfig
from experiments.prune.shape import wanted_architecture
from pruning import Architecture, architecture_of, parameter_count
from pruning.families import forward_flops
from search.needs import (
    MemoryParts,
    Plan,
    PlannedDevice,
    RandomTeacher,
    Work,
    importance_tokens,
    teacher_pass,
)
from workspace.models import ModelSource
from workspace.settings import LONGEST_BLOCK

READING, EVALUATION = "teacher that reads", "teacher and student"


@dataclass(frozen=True)
class CutPlan:
    """What a cut takes of a device."""

    config: PruneConfig
    """What the user set."""
    device: PlannedDevice
    """What it is planned for."""
    teacher: ModelSource
    """Of which the configuration alone is read."""
    architecture: Architecture
    """Sizes of the student."""

    @classmethod
    def of(cls, config: PruneConfig) -> "CutPlan":
        """Raises SearchError or PruningError for what cannot be cut."""
        device = PlannedDevice.of(config.device, config.plan_for)
        teacher = ModelSource.described(config.teacher, prunable=True)
        wanted = wanted_architecture(config, teacher, device=device.type)
        return cls(config, device, teacher, wanted)

    def plan(self) -> Plan:
        """The plan for people; a device is timed where it is here and holds the teacher."""
        each, basis = self._speed()
        whole, own = self.teacher.parameters, self.parameters
        return Plan(
            opening=[
                f"teacher: {architecture_of(self.teacher.config)}, {whole:,} parameters",
                f"student: {self.architecture}, {own:,} parameters ({own / whole:.1%})",
                f"planned for: {self.device}",
            ],
            work=list(self._work(each)),
            remarks=[basis],
            moments=self.moments,
            disk=self.disk,
            notes=[
                "the text is not read: it is taken to have the tokens that are read, "
                f"{self.config.splits.test_tokens:,} for test",
                "memory is that of tensors; the process, and what a device's driver keeps, come "
                "besides, and importance by gradients takes more",
                "not counted: packing of the text, proofs, the cut itself",
            ],
            problem=self.problem,
        )

    @cached_property
    def parameters(self) -> int:
        """Of the student, without biases that the cut may add."""
        kept = self.config.keep_layers
        return int(parameter_count(self.teacher.config, self.architecture, kept=kept))

    @property
    def block(self) -> int:
        """Tokens of a sequence."""
        return self.config.block or min(LONGEST_BLOCK, self.teacher.positions)

    @property
    def dtype(self) -> torch.dtype:
        """Type that teacher and student compute in."""
        return self.teacher.dtype_in(self.config.teacher_precision)

    @cached_property
    def moments(self) -> dict[str, MemoryParts]:
        """Memory of a device by what it does at once."""
        found = {READING: self._pass(self.config.batch, 0)}
        if self.config.evaluate:
            found[EVALUATION] = self._pass(1, self.parameters)
        return found

    def _pass(self, sequences: int, beside: int) -> MemoryParts:
        """With so many parameters beside those of the teacher."""
        return teacher_pass(
            self.teacher.config,
            self.teacher.parameters + beside,
            dtype=self.dtype,
            block=self.block,
            sequences=sequences,
        )

    @cached_property
    def disk(self) -> dict[str, float]:
        """Bytes by part."""
        teacher = self.teacher.parameters * self.teacher.dtype.itemsize
        parts = {
            "student": float(self.parameters * self.teacher.dtype.itemsize),
            "text model": float(teacher * (self.teacher.part is not None)),
        }
        return {name: size for name, size in parts.items() if size}

    @cached_property
    def problem(self) -> EspalierError | None:
        """What does not fit, with the setting to change; None where all does."""
        config = self.config
        most = max(float(moment.total) for moment in self.moments.values())
        try:
            require(
                config.spread or most <= self.device.memory,
                f"the cut takes about {shown_bytes(most)}, above the "
                f"{shown_bytes(self.device.memory)} of the device; {self._remedy()}",
            )
            if self.device.here:
                place = config.output.absolute().parent
                require_space(place, int(sum(self.disk.values())), error=PruningError)
        except EspalierError as problem:
            return problem
        return None

    def _remedy(self) -> str:
        """The settings with which it fits."""
        given, free = self.config.batch, self.device.memory
        sizes = [given, *(2**power for power in reversed(range(given.bit_length())))]
        for batch in dict.fromkeys(size for size in sizes if size <= given):
            if float(self._pass(batch, 0).total) > free:
                continue
            options = [f"--batch {batch}"] if batch < given else []
            if EVALUATION in self.moments and float(self.moments[EVALUATION].total) > free:
                options.append("--no_evaluate")
            return f"give {' and '.join(options)}"
        return "give --spread, which uses all GPUs, the host's memory and the disk"

    def _speed(self) -> tuple[float | None, str]:
        """Seconds for an operation of the teacher, and how that is known."""
        stated = self.device.flops
        if stated is not None:
            return 1 / stated, f"times by --plan_for.tflops {stated / 1e12:g}"
        state = "give --plan_for.tflops, the TFLOP/s that the teacher comes to"
        if self.problem is not None or not self.device.here or self.config.spread:
            return None, f"times are not known: the teacher is not held by this device; {state}"
        if not self.teacher.has_weights:
            return None, f"times are not known: the teacher's weights are not here; {state}"
        place = torch.device(self.device.type)
        teacher = RandomTeacher(self.teacher.config, self.dtype, place)
        return teacher.seconds_per_flop(self.block), "times by a pass of random weights"

    def _work(self, each: float | None) -> Iterator[Work]:
        """In the order in which it is done."""
        config, whole = self.teacher.config, architecture_of(self.teacher.config)
        per_token = float(forward_flops(config, whole, self.block))
        of_student = float(forward_flops(config, self.architecture, self.block))
        read = importance_tokens(
            self.config.cut.measured(
                self.architecture,
                layers=whole.layers,
                chosen=self.config.keep_layers is not None,
            ),
            self.config.calibration,
            layers=whole.layers,
            block=self.block,
        )
        parts = {"importance": (read, read * per_token)}
        if self.config.evaluate:
            tested = self.config.splits.test_tokens
            parts["evaluation"] = tested, tested * (per_token + of_student)
        for what, (tokens, flops) in parts.items():
            seconds = None if each is None else flops * each
            yield Work(what=what, runs=1, tokens=tokens, forward_flops=flops, seconds=seconds)
