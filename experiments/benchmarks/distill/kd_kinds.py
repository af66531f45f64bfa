"""The steps that `kd_step.py` compares: each as a run, all timed in rounds, each one's memory."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from distill import (
    Distillation,
    ResolvedTraining,
    TargetFormat,
    Targets,
    TrainingData,
    write_targets,
)
from distill.backend import process_memory
from distill.loss import DistillationModule, LiveTeacher, SupervisedBatch
from distill.targets import DRAWS, TRAINING_TOPK
from experiments.benchmarks.distill import kd_peer
from experiments.benchmarks.distill.kd_setting import (
    Preset,
    make_student,
    make_teacher,
    peak_tflops,
    training_flops,
)
from pruning import architecture_of

CACHED, SAMPLED, FULL, LIVE = "cached", "sampled", "full", "live"
CE, OWN_CE, GKD = "ce", "own-ce", "gkd"
SHOWN = {
    CACHED: f"stored, top {TRAINING_TOPK} and the rest",
    SAMPLED: f"stored, {DRAWS} draws",
    FULL: "stored, whole distribution",
    LIVE: "live teacher",
    CE: "plain cross-entropy",
    OWN_CE: "cross-entropy in pieces",
    GKD: "TRL GKDTrainer",
}
WITH_TEACHER = (LIVE, GKD)
MEMORY_STEPS = 3


class PlainCrossEntropy(DistillationModule):
    """The step without a teacher that people write."""

    def forward(self, batch: SupervisedBatch | Tensor) -> Tensor:
        assert isinstance(batch, SupervisedBatch)
        ids = batch.blocks
        logits = self.student(input_ids=ids, use_cache=False).logits
        labels = functional.pad(ids[:, 1:], (0, 1), value=-100)  # which cross_entropy ignores
        return functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


@dataclass(frozen=True)
class Bench:
    """One preset on one device; its stored targets are in `folder`."""

    preset: Preset
    device: str
    precision: str
    folder: Path
    stated_tflops: float | None = None
    """What the device computes at most, where the caller says it."""
    only: tuple[str, ...] = ()
    """The kinds to measure; all that can be, where none is named."""

    @property
    def kinds(self) -> list[str]:
        if self.only:
            return list(self.only)
        left_out = {FULL} if not self.preset.whole else set()
        left_out |= {GKD} if not kd_peer.INSTALLED else set()
        return [kind for kind in SHOWN if kind not in left_out]

    @property
    def blocks(self) -> NDArray[np.int32]:
        preset = self.preset
        shape = (preset.batch * preset.steps, preset.sequence)
        return np.random.default_rng(0).integers(0, preset.vocabulary, shape, dtype=np.int32)

    def write_targets(self) -> None:
        """The stored targets that the kinds read, of a fresh teacher."""
        self.write_targets_of(make_teacher(self.preset, self.device))

    def write_targets_of(self, teacher: Any) -> None:
        vocabulary = self.preset.vocabulary
        forms = {
            CACHED: TargetFormat(vocabulary, TRAINING_TOPK),
            SAMPLED: TargetFormat.sampled(vocabulary, DRAWS),
            FULL: TargetFormat.whole(vocabulary),
        }
        for kind in set(forms) & set(self.kinds):
            write_targets(
                teacher,
                self.blocks,
                target_format=forms[kind],
                directory=self.folder / kind,
                precision=self.precision,
            )

    def run(self, kind: str, student: Any, teacher: Any, steps: int) -> Distillation:
        """A run of one of our kinds, long enough for `steps` steps."""
        preset = self.preset
        ours = kind in (CE, OWN_CE)
        training = ResolvedTraining(
            batch=preset.batch,
            precision=self.precision,
            learning_rate=1e-4,
            loss="ce" if ours else "forward-kl",
            micro_batch=preset.micro_batch,
            gradient_checkpointing=preset.gradient_checkpointing,
            compile=preset.compile,
        )
        targets: Targets | LiveTeacher | None = None
        if kind == LIVE:
            targets = LiveTeacher(
                teacher, preset.vocabulary, temperature=1.0, precision=self.precision
            )
        elif not ours:
            targets = Targets(self.folder / kind)
        data = TrainingData(self.blocks, targets, seed=0)
        tokens = steps * preset.batch * preset.sequence
        run = Distillation(student, data, training=training, tokens=tokens)
        if kind == CE:
            run.module = PlainCrossEntropy(student, training.distillation_loss)
        return run

    def train_peer(
        self, run: Distillation, teacher: Any, steps: int, rounds: int, between: Callable[[], None]
    ) -> list[float]:
        """GKD on the student and with the optimiser of `run`."""
        timed = kd_peer.Rounds(steps, rounds, drain=self.drain, between=between)
        return kd_peer.train(run, teacher, blocks=self.blocks, scratch=self.folder, rounds=timed)

    def drain(self) -> None:
        """Wait for what the device has yet to do."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Speeds:
    """What the timing process found."""

    seconds: dict[str, list[float]]
    """Per optimiser step, by kind and round."""
    teacher: str
    student: str
    teacher_parameters: int
    student_parameters: int
    teacher_flops: float
    """Operations per token to train it; a forward pass takes a third."""
    student_flops: float
    peak_tflops: float | None
    device_name: str


def time_rounds(bench: Bench, kinds: list[str]) -> Speeds:
    """`kinds` in alternating rounds, in one process, after a round that does not count."""
    preset = bench.preset
    student, teacher = make_student(preset, bench.device), make_teacher(preset, bench.device)
    rounds = preset.rounds + 1
    runs = {
        kind: bench.run(kind, student, teacher, rounds * preset.steps)
        for kind in kinds
        if kind != GKD
    }
    first = next(iter(runs.values()))
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}

    def one_round() -> None:
        for kind, run in runs.items():
            run.optimizer = first.optimizer
            bench.drain()
            start = time.perf_counter()
            run.advance(preset.steps)
            bench.drain()
            seconds[kind].append((time.perf_counter() - start) / preset.steps)

    if GKD in kinds:
        seconds[GKD] = bench.train_peer(first, teacher, preset.steps, rounds, one_round)
    else:
        for _ in range(rounds):
            one_round()
    cuda = bench.device.startswith("cuda")
    return Speeds(
        {kind: values[1:] for kind, values in seconds.items()},
        str(architecture_of(teacher.config)),
        str(architecture_of(student.config)),
        teacher.num_parameters(),
        student.num_parameters(),
        training_flops(teacher, preset.sequence),
        training_flops(student, preset.sequence),
        bench.stated_tflops or peak_tflops(bench.device),
        torch.cuda.get_device_name(bench.device) if cuda else f"{torch.get_num_threads()} threads",
    )


def peak_memory(bench: Bench, kind: str) -> int:
    """Bytes at most while one kind steps, over what the process held before its first model."""
    if kind == GKD:
        kd_peer.load()  # before anything is counted
    before: int = psutil.Process().memory_info().rss
    teacher = make_teacher(bench.preset, bench.device) if kind in WITH_TEACHER else None
    student = make_student(bench.preset, bench.device)
    run = bench.run(CE if kind == GKD else kind, student, teacher, MEMORY_STEPS)
    gc.collect()
    if bench.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(bench.device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    if kind == GKD:
        bench.train_peer(run, teacher, MEMORY_STEPS, 1, lambda: None)
    else:
        run.advance(MEMORY_STEPS)
    if bench.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(bench.device)
    return process_memory()["VmHWM"] - before
