"""Trials of a study on the slots of its driver.

The study is the only record: it is asked what to try, and told what came of it. Whatever runs when
the driver ends is taken up again from the study and the checkpoints.
"""

import logging
import math
import shutil
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import ray
from optuna.trial import FrozenTrial, TrialState
from ray.exceptions import RayError

from common.errors import SearchStopped
from common.progress import Facts, Progress, tell
from distill.recipes import RunReport
from search.cluster.ray_errors import LOST_NODE_SECONDS, WorkerFailure, noted, of_memory
from search.cluster.room import too_large
from search.database.trial_facts import architecture_of, last_by_origin, progress_of
from search.study.record import Record
from search.trials.plan import TrialPlan, trial_name
from search.workers.slot import TrialTask
from search.workers.slots import SlotPool

LOGGER = logging.getLogger(__name__)
ASK_AGAIN_SECONDS = 1.0
"""After the study had no trial to start. Only another driver of the study, or the end of a trial of
this one, can change the answer."""


LATE_SECONDS = 5.0
"""For which reports are waited after time is up; about as long as a new process takes to start."""


@dataclass(frozen=True)
class _Running:
    """A trial that a slot is in."""

    number: int
    task: TrialTask
    slot: Any


class OtherRuns(Protocol):
    """Runs that slots take up where there is no trial for them any more."""

    running: dict[Any, Any]
    """Those that were begun, by Ray's reference to their end."""

    def start(self) -> bool:
        """Begin another one; False where there is none."""

    def take_up(self, reference: Any) -> None:
        """One has come to its end."""


class NoRuns:
    """`OtherRuns` of which there are none."""

    running: ClassVar[dict[Any, Any]] = {}

    def start(self) -> bool:
        """False: there is none."""
        return False

    def take_up(self, reference: Any) -> None:
        """Never called."""


class TrialRunner:
    """Asks the study for trials, has slots train them, and tells it how each one went."""

    def __init__(
        self, record: Record, plan: TrialPlan, slots: SlotPool, other: OtherRuns | None = None
    ):
        """`other` are runs that begin where the last trials leave a slot free, and go on after
        them."""
        self.record, self.plan, self.slots = record, plan, slots
        self.other = other or NoRuns()
        self.progress = Progress(plan.target, done=record.finished())
        self.running: dict[Any, _Running] = {}
        """By Ray's reference to the next report."""
        self.too_large: str | None = None
        """Why the search stops, where a trial did not fit the memory though it ran alone."""
        self._stopped: list[str] = []
        """The last trial that did not come to its end, and why."""
        self._late = math.inf
        """When time was up, on the monotonic clock."""
        self._asked_in_vain = -math.inf
        self._not_before = -math.inf
        """When a trial may be started again after a node may have been lost."""

    def run(self) -> None:
        """Until the study has as many trials as it shall, or has no more to try."""
        done, total = float(self.record.finished()), float(self.plan.target)
        tell(LOGGER, work="trials", done=done, total=total, unit="trials")
        with self.slots.closed_on_failure():
            while self._go_on():
                pass

    def _go_on(self) -> bool:
        """Start what there is room for and take up what is reported; False: all is done."""
        while (trial := self.next_trial()) is not None:
            self._step(_Running(trial.number, self.plan.task(trial), self.slots.take()))
        while self.running and self._idle() and self.other.start():
            pass
        if self.running:
            self._take_up_report()
        elif time.monotonic() < self._not_before and not self._over():
            time.sleep(ASK_AGAIN_SECONDS)
        else:
            return False
        return True

    def next_trial(self) -> FrozenTrial | None:
        """A trial to start now; None where there is none, or no room for it."""
        now = time.monotonic()
        if self._over() or not self._room() or now < self._not_before:
            return None
        if now - self._asked_in_vain < ASK_AGAIN_SECONDS:
            return None
        trial = self.record.next_trial(self.plan.target)
        if trial is None:
            self._asked_in_vain = now
        return trial

    def _room(self) -> bool:
        """Whether another run may start."""
        return len(self.running) + len(self.other.running) < self.plan.room.limit

    def _idle(self) -> bool:
        """Whether there is room, and the study has just said that it has no trial for it."""
        asked = time.monotonic() - self._asked_in_vain < ASK_AGAIN_SECONDS
        return asked and self._room() and not self._over()

    def _over(self) -> bool:
        """Whether no trial is started any more, whatever the study has."""
        failures = self.record.failures_in_a_row
        return (
            self.too_large is not None or failures >= self.plan.max_failures or self.out_of_time()
        )

    def out_of_time(self) -> bool:
        """Whether time is up; once it is, it stays so."""
        if self._late == math.inf and self.plan.out_of_time():
            self._late = time.monotonic()
        return self._late < math.inf

    def _step(self, run: _Running) -> None:
        """Have the slot train to the next report, as a task with the trial's name."""
        tell(LOGGER, begun=run.task.label)
        reference = run.slot.next_report.options(name=run.task.label).remote(run.task)
        self.running[reference] = run

    def _take_up_report(self) -> None:
        """Wait for a report, but not for ever: the study may have work by then."""
        under_way = [*self.running, *self.other.running]
        ready, _ = ray.wait(under_way, num_returns=1, timeout=ASK_AGAIN_SECONDS)
        for reference in ready:
            if reference in self.other.running:
                self.other.take_up(reference)
                continue
            run = self.running.pop(reference)
            try:
                result = ray.get(reference)
            except RayError as problem:
                result = problem
            if isinstance(result, RunReport):
                self._reported(run, result)
            else:
                self.slots.drop(run.slot)
                self.failed(run.number, result)
        if self.out_of_time() and time.monotonic() - self._late > LATE_SECONDS:
            self._leave_running()
        self.slots.release_unused()

    def _leave_running(self) -> None:
        """End the processes of what runs; the trials stay live, and go on from their checkpoints
        at the next start."""
        for run in self.running.values():
            self.slots.drop(run.slot)
        self.running.clear()

    def _reported(self, run: _Running, report: RunReport) -> None:
        """Have the trial go on if it shall; else the slot is free."""
        if self.goes_on(run.number, report):
            self._step(run)
            return
        if not report.done:
            run.slot.leave.options(name=f"{run.task.label} stops").remote()
        self.slots.give_back(run.slot)

    def goes_on(self, number: int, report: RunReport) -> bool:
        """Tell the study what a trial reported; whether it shall go on."""
        stopped = self.record.report(number, report) and not report.done
        if not (report.done or stopped):
            self._left_in_words()  # whoever shows how long the study still takes hears it
            # Where time is up, it stays live in the record, which puts it back at the end.
            return not self.out_of_time()
        self._asked_in_vain = -math.inf
        trial = self.record.live[number]
        self._ended(trial, self._scored(number, report, stopped=stopped), again=False)
        return False

    def failed(self, number: int, problem: WorkerFailure | RayError) -> None:
        """Tell the study that a trial failed, or that the process died which it was in."""
        self._asked_in_vain = -math.inf
        trial = self.record.live[number]
        if isinstance(problem, WorkerFailure):
            again, outcome = self._failed(trial, problem)
        else:
            again, outcome = self._lost(trial, problem)
        self._ended(trial, outcome, again=again)

    def _ended(self, trial: FrozenTrial, outcome: str, *, again: bool) -> None:
        if not again:
            shutil.rmtree(self.plan.checkpoint(trial), ignore_errors=True)
        finished, name = self.record.finished(), _label(trial)
        tell(LOGGER, **(self._facts() | Facts(over=name, done=float(finished))))
        words = self._left_in_words()
        LOGGER.info(f"[{finished} of {self.plan.target}] {name}: {outcome}{words}")

    def _left_in_words(self) -> str:
        return self.plan.words(self.progress.left(self.record.finished()))

    def _facts(self) -> Facts:
        """The best so far, and how others ended."""
        facts = Facts()
        if self.record.trials(TrialState.COMPLETE):
            best = self.record.ranked()[0]
            progress = progress_of(best)
            kl = "" if progress is None else f", kl {progress.last.kl:.4f}"
            facts["best"] = f"{_label(best)}{kl}"
        states = (TrialState.PRUNED, "stopped early"), (TrialState.FAIL, "failed")
        # of trials that were interrupted the last alone: what came before did not fail
        reached = [trial.state for trial in last_by_origin(self.record.trials()).values()]
        counts = [(reached.count(state), what) for state, what in states]
        ended = [f"{count} {what}" for count, what in counts if count]
        if ended:
            facts["ended"] = "; last ".join([", ".join(ended), *self._stopped])
        return facts

    def _failed(self, trial: FrozenTrial, failure: WorkerFailure) -> tuple[bool, str]:
        """Of a trial whose worker raised something: whether it goes on, and the outcome."""
        reason = failure.noted(self.plan.errors, trial_name(trial.number))
        if of_memory(reason):
            return True, self._put_back(trial, reason)
        self.record.fail(trial.number, reason)
        self._stopped = [f"{trial_name(trial.number)}: failed: {reason}"]
        return False, f"failed: {reason}"

    def _lost(self, trial: FrozenTrial, problem: RayError) -> tuple[bool, str]:
        """The same of a trial whose slot died, with Ray's own words on that."""
        log, number = self.plan.errors, trial.number
        reason = self.plan.room.explained(noted(log, trial_name(number), problem=problem))
        if of_memory(reason):
            return True, self._put_back(trial, reason)
        again = self.record.lost(number, reason)
        if again and self.plan.access is not None:
            self._not_before = time.monotonic() + LOST_NODE_SECONDS
        return again, f"{reason}; {'taking it up again' if again else 'given up'}"

    def _put_back(self, trial: FrozenTrial, reason: str) -> str:
        """A trial wanted for memory: fewer run from now on, or else the search stops."""
        self.record.lost(trial.number, reason, counted=False)
        said = self.plan.room.lowered(reason, len(self.running))
        if said is None:
            self.too_large = too_large(_label(trial), reason, training=self.plan.assets.training)
        return said or f"{reason}; put back"

    def _scored(self, number: int, report: RunReport, *, stopped: bool) -> str:
        kl = report.curve[-1].kl
        if stopped:
            self.record.stop_early(number)
            why = self.record.policy.stopping.why
            outcome = f"kl {kl:.4f}, stopped early at {report.tokens:,} tokens, {why}"
            self._stopped = [f"{trial_name(number)}: {outcome}"]
            return outcome
        self.record.complete(number, kl, sequences=report.kl_sequences, scores=dict(report.scores))
        return f"kl {kl:.4f} after {report.tokens:,} tokens"


def _label(trial: FrozenTrial) -> str:
    """Its name and its architecture."""
    return f"{trial_name(trial.number)} {architecture_of(trial)}"


def run_trials(
    record: Record, plan: TrialPlan, slots: SlotPool, other: OtherRuns | None = None
) -> None:
    """Run trials until the study has as many as it shall, or the space is exhausted.

    `other` runs begin where the last of them leave a slot free, and may go on after the end.
    Trials that time runs out for are left live in the record. Raises SearchStopped after several
    failures in a row, where a trial does not fit the memory even alone, and where nothing can be
    recorded any more.
    """
    runner = TrialRunner(record, plan, slots, other)
    runner.run()
    if runner.too_large is not None:
        raise SearchStopped(runner.too_large)
    if record.failures_in_a_row >= plan.max_failures:
        raise SearchStopped(
            f"{record.failures_in_a_row} trials failed in a row; the last reasons are in the study "
            "(attribute error) and in trials.csv; mend the cause and start the same command again"
        )
