"""One student in training, as a worker sees it: cut, distilled, scored, resumable.

Trials and full runs are the same thing with other numbers. Knows nothing of Ray or Optuna.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill.corpus import Corpus
from distill.evaluation import Evaluation, evaluate
from distill.targets import Targets
from distill.training import Distillation, Throttle, TrainingData, TrainingSettings
from pruning import (
    ENERGIES_FILE,
    ORDERING_FILE,
    Architecture,
    Checkpoint,
    Ordering,
    architecture_of,
    cut_student,
    student_config,
)
from pruning.options import rms_rescale
from pruning.rows import Cut
from pruning.slicing import NO_CHANGES

PROGRESS_SECONDS = 20.0


@dataclass(frozen=True)
class Assets:
    """What all runs of a study read. Paths, so that a worker opens only what it needs."""

    sorted_teacher: Path
    corpus: Path
    training_targets: Path
    selection_targets: Path
    test_targets: Path
    training: TrainingSettings
    """Resolved: no field is None but the learning rate."""
    seed: int
    device: str
    precision: str

    def training_data(self) -> TrainingData:
        blocks = Corpus(self.corpus).blocks("train")
        return TrainingData(blocks, Targets(self.training_targets), self.seed)


@dataclass(frozen=True)
class Job:
    """One student to train."""

    name: str
    """Readable, such as trial-0012."""
    architecture: Architecture
    tokens: int
    """Tokens of the whole run."""
    checkpoint: Path
    """Where the run is kept while it goes on."""
    checkpoint_seconds: float
    reports: int = 1
    """Evaluations, evenly spaced; the last at the end."""
    shuffle: int = 0
    """Order of the tokens; 0 is the study's."""
    from_scratch: bool = False
    """Random initialisation instead of a cut."""

    def __str__(self) -> str:
        return f"{self.name} {self.architecture}"


def build_student(assets: Assets, job: Job) -> PreTrainedModel:
    """The student before its first step, in fp32."""
    source = Checkpoint(assets.sorted_teacher)
    ordering = Ordering.load(assets.sorted_teacher / ORDERING_FILE)
    kept = ordering.kept_layers(job.architecture.layers)
    if not job.from_scratch:
        changes = NO_CHANGES
        energies = assets.sorted_teacher / ENERGIES_FILE
        if energies.exists():
            cut = Cut(
                source.config, Ordering.identity(architecture_of(source.config)), job.architecture
            )
            changes = rms_rescale(cut, kept, load_file(energies))
        return cut_student(source, job.architecture, kept, changes=changes)
    torch.manual_seed(assets.seed)
    config = student_config(source.config, job.architecture, kept)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


class CandidateRun:
    """A run from its first step, or from its checkpoint."""

    def __init__(self, assets: Assets, job: Job):
        self.job = job
        self.assets = assets
        self.selection: Evaluation | None = None
        self.busy_seconds = 0.0
        self._parent = os.getppid()
        self._checkpoint_due = Throttle(job.checkpoint_seconds)
        self._line_due = Throttle(PROGRESS_SECONDS)
        self._start()
        self.resumed_tokens = 0
        if job.checkpoint.exists():
            self._resume()
        reported = bool(self.curve) and self.curve[-1]["tokens"] == self.distillation.tokens
        self._undecided = reported

    def _start(self) -> None:
        device: Any = torch.device(self.assets.device)
        self.student = build_student(self.assets, self.job).to(device)
        self.distillation = Distillation(
            self.student,
            self.assets.training_data(),
            self.assets.training,
            self.job.tokens,
            self.assets.precision,
            self.job.shuffle,
        )
        self.curve: list[dict[str, Any]] = []
        self.seconds = 0.0

    def _resume(self) -> None:
        """Go on from the checkpoint; one that cannot be read counts as absent."""
        try:
            meta = self.distillation.restore(self.job.checkpoint)
            self.curve, self.seconds = meta["curve"], meta["seconds"]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
            print(f"{self.job.checkpoint} cannot be read ({problem}); starting again", flush=True)
            self._start()
        self.resumed_tokens = self.distillation.tokens

    @property
    def _ends(self) -> list[int]:
        return report_steps(self.distillation.total_steps, self.job.reports)

    @property
    def finished(self) -> bool:
        return len(self.curve) == len(self._ends)

    def next_report(self) -> dict[str, Any]:
        """Train to the next evaluation and return all that is known of the run.

        A run resumed at an evaluation returns that one first: the driver may not have seen it.
        """
        if self._undecided:
            self._undecided = False
            return self._result()
        started, saving = time.monotonic(), 0.0
        before = self.distillation.tokens
        base = self.seconds
        target = self._ends[len(self.curve)]

        def after_step() -> None:
            nonlocal saving
            self.seconds = base + time.monotonic() - started
            if self._checkpoint_due():
                self._save()
                saving += base + time.monotonic() - started - self.seconds
            if self._line_due():
                print(self._line(before, started), flush=True)

        loss = self.distillation.advance(target - self.distillation.step, after_step)
        self.selection = self.evaluate()
        point = {"tokens": self.distillation.tokens, "loss": loss, **self.selection.means()}
        self.curve.append(point)
        self.seconds = base + time.monotonic() - started
        self.busy_seconds += time.monotonic() - started - saving
        line = self._line(before, started)
        print(f"{line} kl {point['kl']:.4f} ce {point['ce']:.4f}", flush=True)
        self._save()
        return self._result()

    def evaluate(self) -> Evaluation:
        """The student on the selection split, as it is now."""
        blocks = Corpus(self.assets.corpus).blocks("selection")
        targets = Targets(self.assets.selection_targets)
        return evaluate(self.student, blocks, targets, self.assets.precision)

    def _line(self, before: int, started: float) -> str:
        tokens, total = self.distillation.tokens, self.distillation.total_tokens
        speed = (tokens - before) / max(time.monotonic() - started, 1e-9)
        left = (total - tokens) / max(speed, 1e-9)
        return f"{tokens:,} of {total:,} tokens, {speed:,.0f} tokens/s, {left:.0f} s left"

    def _save(self) -> None:
        """Write the checkpoint, unless the parent died: then another worker may be at it."""
        if os.getppid() != self._parent:
            raise SystemExit("the process that started this run is gone")
        self.distillation.save(self.job.checkpoint, curve=self.curve, seconds=self.seconds)

    def _result(self) -> dict[str, Any]:
        return {
            "tokens": self.distillation.tokens,
            "resumed_tokens": self.resumed_tokens,
            "seconds": self.seconds,
            "busy_seconds": self.busy_seconds,
            "curve": self.curve,
            "done": self.finished,
        }


def report_steps(total_steps: int, reports: int) -> list[int]:
    """The optimiser steps after which a run is evaluated; the last is its end."""
    return sorted({max(1, total_steps * i // reports) for i in range(1, reports + 1)})
