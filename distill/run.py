"""A distillation from its start or its checkpoint to its end, with evaluations on the way."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distill.data.corpus import Corpus
from distill.evaluation import Evaluation
from distill.limits import RunLimits
from distill.metrics import MetricLog
from distill.reports import CurvePoint, RunReport, points_from_json, points_to_json
from distill.targets import Targets
from distill.training import Distillation, Throttle

PROGRESS_SECONDS = 20.0
PLATEAU_SHARE = 0.005
"""By how much of itself the KL must fall to count as better."""


class ResumableRun:
    """Trains, evaluates on a split and checkpoints; every process of the run makes one."""

    def __init__(
        self,
        start: Callable[[], Distillation],
        limits: RunLimits,
        *,
        corpus: Corpus,
        targets: Targets,
        say: Callable[[str], None],
        log: MetricLog | None = None,
        before_save: Callable[[], None] = lambda: None,
        plateau: int | None = None,
    ):
        """`start` makes the distillation as it is before its first step; `targets` are those of the
        selection split. `before_save` may refuse a checkpoint by an exception. The run ends after
        `plateau` evaluations in a row without a better KL; None: never early."""
        self.limits, self.corpus, self.targets = limits, corpus, targets
        self.say, self.log, self.before_save = say, log, before_save
        self.plateau = plateau
        self.selection: Evaluation | None = None
        self.busy_seconds = 0.0
        self.resumed_tokens = 0
        self._begin(start)
        world = self.distillation.world
        checkpoint = limits.checkpoint
        if checkpoint is not None and world.agree(checkpoint.exists()):
            self._resume(start, checkpoint)
        self._checkpoint_due = Throttle(limits.checkpoint_seconds)
        self._line_due = Throttle(PROGRESS_SECONDS)
        reported = bool(self.curve) and self.curve[-1].tokens == self.distillation.tokens
        self._undecided = reported

    def _begin(self, start: Callable[[], Distillation]) -> None:
        self.distillation = start()
        self.curve: list[CurvePoint] = []
        self.seconds = 0.0

    def _resume(self, start: Callable[[], Distillation], checkpoint: Path) -> None:
        """Go on from the checkpoint; one that cannot be read counts as absent."""
        try:
            meta = self.distillation.restore(checkpoint)
            self.curve, self.seconds = points_from_json(meta["curve"]), meta["seconds"]
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
            self.say(f"{checkpoint} cannot be read ({problem}); starting again")
            self._begin(start)
        self.resumed_tokens = self.distillation.tokens
        if self.resumed_tokens:
            self.say(f"going on from {self.resumed_tokens:,} tokens")

    @property
    def _ends(self) -> list[int]:
        if isinstance(self.limits.reports, tuple):
            return list(self.limits.reports)
        return report_steps(self.distillation.total_steps, self.limits.reports)

    @property
    def finished(self) -> bool:
        return len(self.curve) == len(self._ends) or self.on_plateau

    @property
    def on_plateau(self) -> bool:
        """Whether the last evaluations brought nothing any more."""
        patience = self.plateau
        if patience is None or len(self.curve) <= patience:
            return False
        best = min(point.kl for point in self.curve[:-patience])
        latest = min(point.kl for point in self.curve[-patience:])
        return bool(latest > best * (1 - PLATEAU_SHARE))

    def next_report(self) -> RunReport:
        """Train to the next evaluation and return all that is known of the run.

        A run resumed at an evaluation returns that one first: the caller may not have seen it.
        """
        if self._undecided:
            self._undecided = False
            return self.result()
        started, saving = time.monotonic(), 0.0
        before = self.distillation.tokens
        base = self.seconds
        target = self._ends[len(self.curve)]

        def after_step() -> None:
            nonlocal saving
            self.seconds = base + time.monotonic() - started
            if self.distillation.world.agree(self._checkpoint_due()):
                self._save()
                saving += base + time.monotonic() - started - self.seconds
            if self._line_due():
                self.say(self._line(before, started))

        loss = self.distillation.advance(target - self.distillation.step, after_step)
        self.selection = self.evaluate()
        point = CurvePoint(self.distillation.tokens, loss, **self.selection.means())
        self.curve.append(point)
        self.seconds = base + time.monotonic() - started
        self.busy_seconds += time.monotonic() - started - saving
        line = self._line(before, started)
        self.say(f"{line} kl {point.kl:.4f} ce {point.ce:.4f}")
        self._note(point, before, started)
        self._save()
        return self.result()

    def evaluate(self) -> Evaluation:
        """The student on the selection split, as it is now."""
        blocks, weights = self.corpus.blocks("selection"), self.corpus.weights("selection")
        return self.distillation.evaluate(blocks, self.targets, weights)

    def _note(self, point: CurvePoint, before: int, started: float) -> None:
        if self.log is None:
            return
        step = max(0, self.distillation.step - 1)
        speed = (point.tokens - before) / max(time.monotonic() - started, 1e-9)
        figures = {name: value for name, value in point.to_dict().items() if value is not None}
        figures |= {"learning_rate": self.distillation.rate(step), "tokens_per_second": speed}
        self.log.write(figures.pop("tokens"), figures)

    def _line(self, before: int, started: float) -> str:
        tokens, total = self.distillation.tokens, self.distillation.total_tokens
        speed = (tokens - before) / max(time.monotonic() - started, 1e-9)
        left = (total - tokens) / max(speed, 1e-9)
        return f"{tokens:,} of {total:,} tokens, {speed:,.0f} tokens/s, {left:.0f} s left"

    def _save(self) -> None:
        if self.limits.checkpoint is None:
            return
        self.before_save()
        curve = points_to_json(self.curve)
        self.distillation.save(self.limits.checkpoint, curve=curve, seconds=self.seconds)

    def result(self) -> RunReport:
        """How far the run has come."""
        return RunReport(
            tokens=self.distillation.tokens,
            resumed_tokens=self.resumed_tokens,
            seconds=self.seconds,
            busy_seconds=self.busy_seconds,
            curve=tuple(self.curve),
            done=self.finished,
        )


def kept_and_said(
    run: Any,
    checkpoint: Path,
    checkpoint_seconds: float,
    name: str,
    say: Callable[[str], None],
    **meta: Any,
) -> Callable[[], None]:
    """What a stage that is not evaluated on its way does after each step of its `run`."""
    checkpoint_due, line_due = Throttle(checkpoint_seconds), Throttle(PROGRESS_SECONDS)

    def after_step() -> None:
        if checkpoint_due():
            run.save(checkpoint, **meta)
        if line_due():
            say(f"{name}: {run.tokens:,} of {run.total_tokens:,} tokens")

    return after_step


def report_steps(total_steps: int, reports: int) -> list[int]:
    """The optimiser steps after which a run is evaluated; the last is its end."""
    reports = min(reports, total_steps)
    return sorted({max(1, total_steps * i // reports) for i in range(1, reports + 1)})
