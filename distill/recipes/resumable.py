"""Resumable runs: from start or checkpoint to the end, with evaluations on the way."""

import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from common.progress import Facts, Progress, RunPace, Throttle, duration
from distill.backend.peaks import PeakMemory
from distill.evaluation.scores import Evaluation, HeldOut
from distill.recipes.callbacks import PROGRESS_SECONDS, RunCallbacks
from distill.recipes.reports import CurvePoint, RunReport, points_from_json, points_to_json
from distill.train.limits import RunLimits
from distill.train.trainer import Distillation

LOGGER = logging.getLogger(__name__)
PLATEAU_SHARE = 0.005
"""By how much of itself the KL must fall to count as better."""


class ResumableRun:
    """Run that trains, evaluates and checkpoints; every process of it makes one."""

    def __init__(
        self,
        start: Callable[[], Distillation],
        limits: RunLimits,
        *,
        selection: HeldOut,
        callbacks: RunCallbacks,
        plateau: int | None = None,
    ):
        """Begin the run, or take it up where its checkpoint can be read.

        Args:
            start: Builds a fresh distillation (also used when a checkpoint is unreadable).
            limits: Evaluations and checkpoints; the distillation itself has the tokens.
            selection: The sequences that the student is evaluated on.
            callbacks: Who is told how the run goes.
            plateau: End after so many evaluations in a row without a better KL; None: never early.
        """
        self.limits, self.held_out = limits, selection
        self.callbacks, self.plateau = callbacks, plateau
        self.selection: Evaluation | None = None
        """The last evaluation; None before one was made."""
        self.busy_seconds = 0.0
        """Spent on steps and evaluations since this process took the run up."""
        self.resumed_tokens = 0
        """Tokens that the checkpoint had when the run was taken up."""
        self._begin(start)
        self._peak = PeakMemory()  # with the student, without what it was cut out of
        kept = limits.checkpoint
        if kept is not None and self.distillation.world.agree(kept.exists()):
            self._resume(start, kept)
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
            self._say(f"{checkpoint} cannot be read ({problem}); starting again")
            self._begin(start)
        self.resumed_tokens = self.distillation.tokens
        if self.resumed_tokens:
            self._say(f"going on from {self.resumed_tokens:,} tokens")

    @property
    def _ends(self) -> list[int]:
        if isinstance(self.limits.reports, tuple):
            return list(self.limits.reports)
        return report_steps(self.distillation.total_steps, self.limits.reports)

    @property
    def finished(self) -> bool:
        """Whether the last evaluation was made."""
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
        progress = Progress(self.distillation.total_tokens, done=self.distillation.tokens)
        base, saving = self.seconds, 0.0
        target = self._ends[len(self.curve)]

        def after_step() -> None:
            nonlocal saving
            self.seconds = base + progress.seconds
            due = self.distillation.world.agree(self._checkpoint_due())
            if self.distillation.settle_saving(waiting=due):
                self._saved()
            if due:
                self._save(waiting=False)
                saving += base + progress.seconds - self.seconds
            if self._line_due():
                self._log(progress)

        try:
            loss = self.distillation.advance(target - self.distillation.step, after_step)
        except BaseException:
            self.distillation.drop_saving()
            raise
        self.selection = self.evaluate()
        point = CurvePoint(self.distillation.tokens, loss, **self.selection.means())
        self.curve.append(point)
        self.seconds = base + progress.seconds
        self.busy_seconds += progress.seconds - saving
        self._log(progress, f", kl {point.kl:.4f}, ce {point.ce:.4f}")
        self._note(point, progress)
        self._save()
        return self.result()

    def evaluate(self) -> Evaluation:
        """The student on the selection split, as it is now."""
        return self.distillation.evaluate(self.held_out)

    def _note(self, point: CurvePoint, progress: Progress) -> None:
        if self.callbacks.log is None:
            return
        step = max(0, self.distillation.step - 1)
        figures = {name: value for name, value in point.to_dict().items() if value is not None}
        figures["learning_rate"] = self.distillation.rate(step)
        figures["tokens_per_second"] = progress.speed(point.tokens)
        self.callbacks.log.write(figures.pop("tokens"), figures)

    def _log(self, progress: Progress, scores: str = "") -> None:
        """Log how far the run is, and its scores where it was evaluated."""
        tokens, total = self.distillation.tokens, self.distillation.total_tokens
        pace = RunPace(tokens, int(total), progress.speed(tokens))
        left = progress.left(tokens)
        facts = Facts(at=pace, said=True) if scores else Facts(at=pace)
        lasting = f", {duration(left)} left" if left else ""
        self._say(f"{pace}{lasting}{scores}", facts)

    def _say(self, line: str, facts: Facts | None = None) -> None:
        """Log a line, once for all processes."""
        if self.distillation.world.first:
            LOGGER.info(line, extra={"facts": facts})

    def _save(self, *, waiting: bool = True) -> None:
        """Write a checkpoint, where the run has any; see `Distillation.save`.

        After an evaluation it waits, so that a caller who saw the evaluation finds it again.
        """
        if self.limits.checkpoint is None:
            return
        self.callbacks.before_save()
        curve = points_to_json(self.curve)
        in_place = self.distillation.save(
            self.limits.checkpoint, waiting=waiting, curve=curve, seconds=self.seconds
        )
        if in_place:
            self._saved()

    def _saved(self) -> None:
        """Called when a checkpoint is in its place; a subclass may bring it elsewhere."""

    def result(self) -> RunReport:
        """How far the run has come."""
        return RunReport(
            tokens=self.distillation.tokens,
            resumed_tokens=self.resumed_tokens,
            seconds=self.seconds,
            busy_seconds=self.busy_seconds,
            curve=tuple(self.curve),
            peak_bytes=self._peak.bytes_on(self.distillation.device),
            done=self.finished,
        )


def report_steps(total_steps: int, reports: int) -> list[int]:
    """The optimiser steps after which a run is evaluated; the last is its end."""
    reports = min(reports, total_steps)
    return sorted({max(1, total_steps * i // reports) for i in range(1, reports + 1)})
