"""Trainer: one loop for short and full runs, on one process or several, exactly resumable.

It does not know what the student is or who asks for the run; it knows tokens, steps and a schedule.
"""

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import DistillError, OutOfMemory, TrainingDiverged
from common.progress import counted
from distill.backend.layers import decoder_layers
from distill.backend.parallel import ALONE, World, shard, to_local
from distill.backend.precision import around_steps, autocast
from distill.evaluation.logits import next_token_log_probs
from distill.evaluation.scores import Evaluation, HeldOut, evaluate_on
from distill.loss.fused_head import compiling_pays
from distill.loss.hidden_states import HiddenStateMatcher
from distill.loss.live_teacher import LiveTeacher
from distill.loss.module import DistillationModule, SupervisedBatch
from distill.targets.encode import SHARD_BLOCKS
from distill.targets.store import Targets
from distill.train.batches import BatchReader, TrainingData
from distill.train.checkpoint import Saving, TrainingState
from distill.train.ema import WeightAverage
from distill.train.export import gathered_weights
from distill.train.finite import FiniteWatch
from distill.train.optimizers import clip_gradients, make_optimizer
from distill.train.schedule import Schedule, Steps
from distill.train.settings import ADAMW_8BIT, ResolvedTraining

__all__ = ["Distillation", "TrainingData", "check_workers"]


class Distillation(Steps):
    """Distillation run: a student, its optimiser, and its progress."""

    def __init__(
        self,
        student: Any,
        data: TrainingData,
        *,
        training: ResolvedTraining,
        tokens: int,
        world: World = ALONE,
    ):
        """Raises DistillError for settings that cannot go together with student, data or world.

        Args:
            student: A stock causal LM in fp32, which is trained in place.
            data: What the run reads.
            training: How it learns.
            tokens: Training tokens of the whole run; a step that they do not fill is left out.
            world: The processes that share it; all of them make the same distillation.
        """
        _check(student, data, training=training, world=world)
        self.student, self.data, self.training, self.world = student, data, training, world
        self.device = next(student.parameters()).device
        self.tokens_per_step = training.batch * data.block
        self.total_steps = max(1, tokens // self.tokens_per_step)
        self.step = 0
        self._reader = BatchReader(
            data, training, steps=self.total_steps, world=world, device=self.device
        )
        self.peak_rate = training.peak_rate(sum(p.numel() for p in student.parameters()))
        self.schedule = Schedule(training, self.peak_rate, self.total_steps)
        matcher = None
        if data.hidden_states is not None and isinstance(data.targets, LiveTeacher):
            matcher = HiddenStateMatcher(data.hidden_states, student, data.targets.model)
        compiled = training.compile or compiling_pays(_vocabulary_of(student), self.device)
        self.module = DistillationModule(
            student, training.distillation_loss, matcher, compiled=compiled
        )
        if training.gradient_checkpointing:
            student.gradient_checkpointing_enable()
        shard(self.module, student, world)
        if training.compile:
            for layer in decoder_layers(student):  # once for all that are alike; masks stay outside
                layer.compile(dynamic=False)
        self.optimizer = make_optimizer(self.module, training, self.peak_rate)
        # the update of a sharded or 8-bit optimiser cannot be left out on the device
        alone = world.mesh is None and training.optimizer != ADAMW_8BIT
        self._watch = FiniteWatch(
            self.optimizer, self._diverged, deferred=alone and self.device.type == "cuda"
        )
        decay = training.average
        self.average = None if decay is None else WeightAverage(self.module, decay)
        self.saves_aside = self.device.type != "cpu"
        """Whether checkpoints can be written while the run goes on: not on the CPU, where the copy
        would take memory and cores from the run itself."""
        self._saving: Saving | None = None
        self._writer: ThreadPoolExecutor | None = None

    def advance(self, steps: int, after_step: Callable[[], None] = lambda: None) -> float | None:
        """Train `steps` optimiser steps or to the end; returns their mean loss, None without any.

        Raises TrainingDiverged at a loss or gradient that is not finite, before it reaches the
        weights, and OutOfMemory where the batch does not fit the device's memory.
        """
        self.student.train()
        steps = min(steps, self.total_steps - self.step)
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            closing(self._batches(steps)) as batches,
            around_steps(self.device, self.training.precision),
            self._memory_watched(),
            torch.random.fork_rng(devices),
        ):
            for _ in range(steps):
                self._one_step(batches)
                self._watch.settle(keep=1)
                after_step()
        return self._watch.mean_loss()

    def _one_step(self, batches: Iterator[SupervisedBatch]) -> None:
        torch.manual_seed(self._dropout_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        total = torch.zeros((), device=self.device)
        count = len(self._reader.micro_batches(self.step))
        for index in range(count):
            if self.world.mesh is not None:
                self.module.set_requires_gradient_sync(index == count - 1)  # type: ignore[operator]
            with autocast(self.device, self.training.precision):
                loss = self.module(next(batches))
            (loss * self.world.size).backward()  # gradients are averaged over the processes
            total += loss.detach()
        norm = clip_gradients(self.module, self.training.clip_norm)
        self._watch.before_update(self.step, self.world.sum(total), norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average:
            self.average.update(self.step)

    def _dropout_seed(self) -> int:
        """By step and process, so that a resumed run drops the same units as an undisturbed one."""
        sequence = np.random.SeedSequence([self.data.seed, self.step, self.world.rank])
        return int(sequence.generate_state(1)[0])

    def _diverged(self, step: int, loss: float) -> TrainingDiverged:
        self.optimizer.zero_grad()
        self.step = step
        slots = self._reader.slots(step)
        shards = sorted({int(slot) // SHARD_BLOCKS for slot in slots})
        what = (
            "the loss became" if not math.isfinite(loss) else "the gradient is not finite at loss"
        )
        return TrainingDiverged(
            f"{what} {loss} at step {step + 1} of {self.total_steps} (learning rate "
            f"{self.rate(step):.2g}; target shards {', '.join(map(str, shards))}); the last "
            "checkpoint is kept; lower --training.learning_rate in a new run"
        )

    def _batches(self, steps: int) -> Generator[SupervisedBatch]:
        """The batches of this process in the coming steps."""
        matcher = self.module.matcher
        wanted = matcher.teacher_layers if matcher else set()
        return self._reader.read(range(self.step, self.step + steps), wanted)

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            short = isinstance(problem, torch.OutOfMemoryError) or "t allocate memory" in str(
                problem
            )
            if not short:
                raise
            size = len(self._reader.micro_batches(self.step)[0])
            advice = " or ".join(self.training.smaller) or "give shorter sequences"
            raise OutOfMemory(
                f"a forward pass of {counted(size, 'sequence')} of {self.data.block} tokens does "
                f"not fit the memory of {self.device}; {advice}"
            ) from problem

    def evaluate(self, held_out: HeldOut) -> Evaluation:
        """The student as it is now; all processes must call it, and all get the whole."""
        with self.averaged():
            evaluation = evaluate_on(
                self.student,
                held_out,
                precision=self.training.precision,
                logits_of=self.module,
                world=self.world,
            )
        if self.world.mesh is not None:
            self.module.reshard()  # type: ignore[operator]
        return evaluation

    @torch.no_grad()
    def as_written(
        self, dtype: torch.dtype, block: NDArray[Any]
    ) -> tuple[dict[str, torch.Tensor], list[float]]:
        """The weights to write in `dtype`, on the first process, and the student's answers.

        The answers are those to a `block` of text [sequence] with these weights (see
        `next_token_log_probs`); a written checkpoint is held against them.

        For the end of a run, since the student's own weights are rounded to `dtype`. All processes
        must call it.
        """
        with self.averaged():
            for value in self.student.parameters():
                mine = to_local(value.data)
                mine.copy_(mine.to(dtype))
            weights = gathered_weights(self.student, dtype, self.world)
            answers = next_token_log_probs(self.student, block, self.module)
        return weights, answers

    def averaged(self) -> AbstractContextManager[None]:
        """The weights that are evaluated and written: their moving average, where one is kept."""
        return self.average.in_place() if self.average else nullcontext()

    def save(self, directory: Path, *, waiting: bool = True, **meta: Any) -> bool:
        """Write a checkpoint from which the run goes on exactly; all processes must call it.

        Returns whether it is in its place.

        Without `waiting`, and where it `saves_aside`, it is written while the run goes on, from a
        copy in the host's memory, and `settle_saving` puts it in place.

        Raises TrainingDiverged where a step was not finite, and writes nothing then.
        """
        self._watch.settle()
        self.settle_saving(waiting=True)
        meta = {"step": self.step, **meta}
        if waiting or not self.saves_aside:
            self._state.save(directory, meta)
            return True
        self._writer = self._writer or ThreadPoolExecutor(1, "checkpoint")
        self._saving = self._state.begin_saving(directory, meta, self._writer)
        return False

    def settle_saving(self, *, waiting: bool) -> bool:
        """Put a checkpoint in its place that was written meanwhile; `waiting` until it is.

        All processes must call it. Returns whether it put one there; raises what the writing
        raised, such as OSError.
        """
        if self._saving is None or not (waiting or self._saving.written):
            return False
        saving, self._saving = self._saving, None
        saving.finish()
        return True

    def drop_saving(self) -> None:
        """Wait for what this process still writes, as a run that failed must before another takes
        up its checkpoint."""
        if self._saving is not None:
            self._saving.wait()

    def restore(self, directory: Path) -> dict[str, Any]:
        """Go on from a checkpoint, of any number of processes; returns its `meta`."""
        meta = self._state.load(directory)
        self.step = meta["step"]
        return meta

    @property
    def _state(self) -> TrainingState:
        average = self.average.values if self.average else {}
        return TrainingState(self.module, self.optimizer, average, self.world)


def _vocabulary_of(student: Any) -> int:
    return int(student.config.get_text_config().vocab_size)


def _check(student: Any, data: TrainingData, *, training: ResolvedTraining, world: World) -> None:
    config = student.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and data.block > positions:
        raise DistillError(
            f"the sequences have {data.block} tokens, but the student has only {positions} "
            "positions; use shorter blocks"
        )
    if isinstance(data.targets, Targets):
        known = data.targets.format.vocabulary
        if known > config.vocab_size:
            raise DistillError(
                f"the targets are over {known} tokens, but the student has only "
                f"{config.vocab_size}; they belong to another student"
            )
    check_workers(training, world.size)
    if data.hidden_states is not None and training.compile:
        raise DistillError(
            "intermediate states are read by hooks, which a compiled student does not call; leave "
            "--training.compile or the states out"
        )
    if data.hidden_states is not None and not isinstance(data.targets, LiveTeacher):
        raise DistillError(
            "intermediate states are not stored; they need the teacher beside the student "
            "(--training.targets live)"
        )


def check_workers(training: ResolvedTraining, workers: int) -> None:
    """Raises DistillError for settings that so many processes cannot train with together."""
    if training.batch % workers:
        low = training.batch // workers * workers
        better = f"{low} or {low + workers}" if low else f"{workers}"
        raise DistillError(
            f"batch is {training.batch}, which {workers} workers cannot share evenly; use {better}"
        )
    if training.optimizer == ADAMW_8BIT and workers > 1:
        raise DistillError(
            f"the optimizer {ADAMW_8BIT} cannot be sharded; use adamw with several workers"
        )
