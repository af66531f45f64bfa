"""One training loop for short and full runs, on one process or several, exactly resumable.

It does not know what the student is or who asks for the run; it knows tokens, steps and a schedule.
"""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.answers import next_token_log_probs
from distill.average import WeightAverage
from distill.checkpoint import load_training_state, save_training_state
from distill.errors import DistillError, OutOfMemory, TrainingDiverged
from distill.evaluation import Evaluation, HeldOut, evaluate_on
from distill.learner import Answer, Learner
from distill.live import LiveTeacher
from distill.optimizers import clip_gradients, make_optimizer
from distill.order import SlotSequence, slot_blocks
from distill.parallel import ALONE, World, local, shard
from distill.precision import around_steps, autocast
from distill.schedule import Schedule, Steps
from distill.settings import ADAMW_8BIT, ResolvedTraining
from distill.states import StateMatcher, StateSettings
from distill.target_batch import TargetBatch
from distill.targets import SHARD_BLOCKS, Targets
from distill.writing import gathered_weights


@dataclass(frozen=True)
class TrainingData:
    """What every run of a study reads."""

    blocks: NDArray[Any]
    """Training tokens [blocks, block]."""
    targets: Targets | LiveTeacher | None
    """The teacher's answers, stored or live; None where the text alone is learnt."""
    seed: int
    """The study's seed: fixes which block a slot holds."""
    weights: NDArray[np.bool_] | None = None
    """Whether the prediction at a token counts [blocks, block]; None: all do."""
    shuffle: int = 0
    """Order in which the slots are read: 0 is the study's; others are replicates of it."""
    states: StateSettings | None = None
    """The hidden states of a live teacher that are learnt besides its distribution."""

    @property
    def block(self) -> int:
        """Tokens of a sequence."""
        return int(self.blocks.shape[1])


class Distillation(Steps):
    """One run: a student, its optimiser and how far it has come."""

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
        _check(student, data, training, world)
        self.student, self.data, self.training, self.world = student, data, training, world
        self.device = next(student.parameters()).device
        self.tokens_per_step = training.batch * data.block
        self.total_steps = max(1, tokens // self.tokens_per_step)
        self.step = 0
        count = self.total_steps * training.batch
        self._order = slot_blocks(len(data.blocks), data.seed)
        self._slots = SlotSequence(count, len(data.blocks), data.seed, data.shuffle)
        self.peak_rate = training.peak_rate(sum(p.numel() for p in student.parameters()))
        self.schedule = Schedule(training, self.peak_rate, self.total_steps)
        matcher = None
        if data.states is not None and isinstance(data.targets, LiveTeacher):
            matcher = StateMatcher(data.states, student, data.targets.model)
        self.learner = Learner(student, training.objective, matcher)
        if training.gradient_checkpointing:
            student.gradient_checkpointing_enable()
        shard(self.learner, student, world)
        if training.compile:
            student.base_model.compile(dynamic=False)
        self.optimizer = make_optimizer(self.learner, training, self.peak_rate)
        decay = training.average
        self.average = None if decay is None else WeightAverage(self.learner, decay)

    def advance(self, steps: int, after_step: Callable[[], None] = lambda: None) -> float | None:
        """Train `steps` optimiser steps or to the end; returns their mean loss, None without any.

        Raises TrainingDiverged at a loss or gradient that is not finite, before it reaches the
        weights, and OutOfMemory where the batch does not fit the device's memory.
        """
        self.student.train()
        losses = []
        steps = min(steps, self.total_steps - self.step)
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            closing(self._answers(steps)) as answers,
            around_steps(self.device, self.training.precision),
            self._memory_watched(),
            torch.random.fork_rng(devices),
        ):
            for _ in range(steps):
                losses.append(self._one_step(answers))
                after_step()
        return float(np.mean(losses)) if losses else None

    def _one_step(self, answers: Iterator[Answer]) -> float:
        torch.manual_seed(self._dropout_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        total = torch.zeros((), device=self.device)
        count = len(self._micro_batches(self.step))
        for index in range(count):
            if self.world.mesh is not None:
                self.learner.set_requires_gradient_sync(index == count - 1)  # type: ignore[operator]
            with autocast(self.device, self.training.precision):
                loss = self.learner(next(answers))
            (loss * self.world.size).backward()  # gradients are averaged over the processes
            total += loss.detach()
        value = self.world.sum(total).item()
        norm = clip_gradients(self.learner, self.training.clip_norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise TrainingDiverged(self._diverged(value))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return value

    def _dropout_seed(self) -> int:
        """By step and process, so that a run that is resumed drops what one that was not does."""
        sequence = np.random.SeedSequence([self.data.seed, self.step, self.world.rank])
        return int(sequence.generate_state(1)[0])

    def _diverged(self, loss: float) -> str:
        slots = self._step_slots(self.step)
        shards = sorted({int(slot) // SHARD_BLOCKS for slot in slots})
        what = (
            "the loss became" if not math.isfinite(loss) else "the gradient is not finite at loss"
        )
        return (
            f"{what} {loss} at step {self.step + 1} of {self.total_steps} (learning rate "
            f"{self.rate(self.step):.2g}; target shards {', '.join(map(str, shards))}); the last "
            "checkpoint is kept; lower --training.learning_rate in a new run"
        )

    def _step_slots(self, step: int) -> NDArray[np.int64]:
        size = self.tokens_per_step // self.data.block
        return self._slots[step * size : (step + 1) * size]

    def _micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """The slots of this process's forward passes in optimiser step `step`."""
        mine = np.split(self._step_slots(step), self.world.size)[self.world.rank]
        size = self.training.micro_batch or len(mine)
        return [mine[start : start + size] for start in range(0, len(mine), size)]

    def _answers(self, steps: int) -> Generator[Answer]:
        """What the coming `steps` steps read, in order; stored targets are read ahead."""
        numbers = range(self.step, self.step + steps)
        wanted = self.learner.matcher.teacher_layers if self.learner.matcher else set()
        targets = self.data.targets
        stored: Generator[TargetBatch] | None = None
        if isinstance(targets, Targets):
            coming = (slots for step in numbers for slots in self._micro_batches(step))
            stored = self._read(targets, coming)
        try:
            for step in numbers:
                totals = self._weight(self._step_slots(step)).sum((0, 1))
                for slots in self._micro_batches(step):
                    chosen = np.asarray(self.data.blocks[self._order[slots]]).astype(np.int64)
                    blocks = torch.from_numpy(chosen).to(self.device)
                    shares = torch.from_numpy(self._weight(slots) / totals).to(self.device)
                    if stored is not None:
                        yield Answer(blocks, shares, next(stored).tokens(), {})
                    elif isinstance(targets, LiveTeacher):
                        yield Answer(blocks, shares, *targets.answer(blocks, wanted))
                    else:
                        yield Answer(blocks, shares, None, {})
        finally:
            if stored is not None:
                stored.close()

    def _read(
        self, targets: Targets, coming: Iterator[NDArray[np.int64]]
    ) -> Generator[TargetBatch]:
        """Stored targets, in order; ahead of the step only where that does not take its cores."""
        if self.device.type == "cpu":
            for slots in coming:
                yield targets.batch(slots, self.device)
        else:
            yield from targets.reading_ahead(coming, self.device)

    def _weight(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """What each token of these slots counts in distillation and text loss [n, block, 2]."""
        shape = (len(slots), self.data.block)
        if self.data.weights is None:
            counted = np.ones((*shape, 2), np.float32)
            counted[:, -1, 1] = 0  # what came after a block is not known
            return counted
        chosen = np.asarray(self.data.weights[self._order[slots]], np.float32)
        return np.stack([chosen, chosen], -1)

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
            size = len(self._micro_batches(self.step)[0])
            raise OutOfMemory(
                f"a forward pass of {size} sequences of {self.data.block} tokens does not fit the "
                f"memory of {self.device}; lower --training.micro_batch (gradients add up to the "
                "same batch), or set --training.gradient_checkpointing"
            ) from problem

    def evaluate(self, held_out: HeldOut) -> Evaluation:
        """The student as it is now; all processes must call it, and all get the whole."""
        with self.averaged():
            found = evaluate_on(
                self.student,
                held_out,
                precision=self.training.precision,
                logits_of=self.learner,
                world=self.world,
            )
        if self.world.mesh is not None:
            self.learner.reshard()  # type: ignore[operator]
        return found

    @torch.no_grad()
    def as_written(
        self, dtype: torch.dtype, block: NDArray[Any]
    ) -> tuple[dict[str, torch.Tensor], list[float]]:
        """The weights to write in `dtype`, on the first process, and what the student answers with
        them on a `block` of text [sequence] (see `next_token_log_probs`), to hold its checkpoint
        against.

        For the end of a run, since the student's own weights are rounded to `dtype`. All processes
        must call it.
        """
        with self.averaged():
            for value in self.student.parameters():
                mine = local(value.data)
                mine.copy_(mine.to(dtype))
            weights = gathered_weights(self.student, dtype, self.world)
            said = next_token_log_probs(self.student, block, self.learner)
        return weights, said

    def averaged(self) -> AbstractContextManager[None]:
        """The weights that are evaluated and written: their moving average, where one is kept."""
        return self.average.in_place() if self.average else nullcontext()

    def save(self, directory: Path, **meta: Any) -> None:
        """Write a checkpoint from which the run goes on exactly; all processes must call it."""
        extra = self.average.values if self.average else {}
        meta = {"step": self.step, **meta}
        save_training_state(directory, self.learner, self.optimizer, meta, extra, self.world)

    def restore(self, directory: Path) -> dict[str, Any]:
        """Go on from a checkpoint, of whatever number of processes; returns what else it holds."""
        extra = self.average.values if self.average else {}
        meta = load_training_state(directory, self.learner, self.optimizer, extra, self.world)
        self.step = meta["step"]
        return meta


def _check(student: Any, data: TrainingData, training: ResolvedTraining, world: World) -> None:
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
    if data.states is not None and training.compile:
        raise DistillError(
            "intermediate states are read by hooks, which a compiled student does not call; leave "
            "--training.compile or the states out"
        )
    if data.states is not None and not isinstance(data.targets, LiveTeacher):
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
