"""The trials of one student: candidates scored after short runs until there are enough."""

import logging
import time
from dataclasses import replace
from typing import Any

from optuna.trial import TrialState

from common.errors import SearchStopped
from common.progress import duration
from distill.train import RunLimits
from search.database.attributes import DRIVER, TRIAL_PHASES
from search.database.trial_facts import progress_of
from search.finals.runner import FullRunner
from search.finals.selection import LastStage
from search.overview import TRIALS, stage_of
from search.run.context import PreparedStudy
from search.run.forecast import Forecast
from search.study.early_stopping import measured_steps
from search.study.record import Record
from search.study.trials_table import write_trials
from search.trials.plan import TrialPlan
from search.trials.runner import run_trials
from search.workers.full_runs import FullPlan
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)
WAIT_SECONDS = 5.0
"""Between looks at the trials of other drivers."""


class TrialStage:
    """Runs the trials that are missing, and waits for those of other drivers."""

    def __init__(
        self,
        study: PreparedStudy,
        record: Record,
        *,
        forecast: Forecast,
        outputs: Workspace,
        deadline: float | None,
        ahead: FullRunner | None = None,
    ):
        """`deadline` is when the full runs must have ended, on the monotonic clock; `ahead` begins
        full runs where the last trials leave a slot free."""
        self.study, self.record, self.forecast, self.ahead = study, record, forecast, ahead
        self.outputs, self.deadline = outputs, deadline
        self.config = study.context.config
        self.target = self.config.trials
        """Trials to finish."""
        self.plan = self._plan(forecast.last.stage)

    def run(self, target: int | None = None) -> None:
        """Until enough trials are finished, or none is left to try, or time is up.

        Enough are `target`, or those that the user asks for. Raises SearchStopped where none
        finished.
        """
        self.target = min(target or self.config.trials, self.config.trials)
        self.plan = replace(self.plan, target=self.target)
        self.forecast.log_plan(self.plan)
        self.study.clock.begin(stage_of(TRIALS, self.record.queue.member))
        self._try()
        queue = self.record.queue
        while self._others_at_work() and not self._out_of_time():
            self.study.slots.release()
            time.sleep(WAIT_SECONDS)
            queue.reclaim()
            waiting = bool(queue.trials(TrialState.WAITING))
            open_places = queue.open_places(self.target) > 0
            if open_places and (waiting or not self.record.exhausted):
                self._try()

    def _others_at_work(self) -> bool:
        """Whether trials that are missing are running elsewhere."""
        missing = self.record.finished() < self.target
        return missing and bool(self.record.trials(TrialState.RUNNING))

    def _plan(self, stage: LastStage) -> TrialPlan:
        study, context, config = self.study, self.study.context, self.config
        step = context.step_tokens
        steps, rungs = stage.short_tokens // step, self.record.policy.stopping.rungs
        return TrialPlan(
            study=config.study,
            target=self.target,
            assets=study.assets,
            limits=RunLimits(
                stage.short_tokens,
                measured_steps(steps, step, rungs=rungs, reports=config.halving.reports),
                checkpoint_seconds=config.checkpoint_seconds,
            ),
            checkpoints=context.checkpoints,
            max_failures=config.max_failures,
            room=study.room,
            tasks=study.questions,
            access=study.access,
            errors=context.workspace.ray_errors,
            out_of_time=self._out_of_time,
            words=self.forecast.words,
            full=self._kept_students(stage),
        )

    def _kept_students(self, stage: LastStage) -> FullPlan | None:
        """How trials are kept as full runs: where one would repeat them, and where time may run out
        before there is another student."""
        if stage.repeats_trials:
            return self.study.full_plan()
        return None if self.deadline is None else self.study.trial_plan()

    def _try(self) -> None:
        """Run the trials that are missing."""
        record, plan = self.record, self.plan
        missing = self.target - record.finished()
        if missing <= 0:
            LOGGER.info(f"trials: {record.finished()} are finished")
            return
        rungs = record.policy.stopping.rungs.tokens
        compared = ", ".join(f"{tokens:,}" for tokens in rungs) or "never"
        LOGGER.info(
            f"trials: {record.finished()} of {self.target} are finished; {plan.limits.tokens:,} "
            f"tokens each, compared after {compared}"
        )
        began = time.monotonic()
        self.forecast.begin()
        busy_before, ahead_before = self._busy_seconds(), self._ahead_seconds()
        try:
            run_trials(record, plan, self.study.slots, self.ahead)
        finally:
            record.queue.release()
            wall, busy = time.monotonic() - began, self._busy_seconds() - busy_before
            self._note_phase(wall, busy, self._ahead_seconds() - ahead_before)
            write_trials(record, self.outputs.trials_table)
        if record.finished() < self.target:
            self._log_why_fewer()
        if not record.ranked() and not self._others_at_work():
            raise SearchStopped(
                "no trial finished; the reasons are in trials.csv; mend the cause and start the "
                "same command again"
            )

    def _out_of_time(self) -> bool:
        """Whether what is left is needed for the full runs; never before a trial has finished."""
        if self.deadline is None or not self.record.finished():
            return False
        return time.monotonic() > self.deadline - self.forecast.kept_seconds(self.deadline)

    def _log_why_fewer(self) -> None:
        record, config = self.record, self.config
        if record.exhausted:
            allowed = record.policy.allowed
            count = len(record.space.feasible if allowed is None else allowed)
            LOGGER.info(
                f"the space is exhausted: all {count} architectures that may be tried were, fewer "
                f"than --trials {config.trials}"
            )
        elif self._out_of_time():
            LOGGER.info(
                f"time: what is left of --time_budget {config.time_budget} is needed for the full "
                f"runs: {record.finished()} of {config.trials} trials are finished; the winners "
                "are chosen from these"
            )

    def _busy_seconds(self) -> float:
        """What all trials that this driver ran spent in training and evaluation."""
        token = self.record.queue.coordination.token
        return sum(
            progress.busy_seconds
            for trial in self.record.trials()
            if trial.user_attrs.get(DRIVER) == token
            and (progress := progress_of(trial)) is not None
        )

    def _ahead_seconds(self) -> float:
        """What full runs took of the slots so far."""
        return 0.0 if self.ahead is None else self.ahead.slot_seconds

    def _note_phase(self, wall: float, busy: float, ahead: float) -> None:
        """Keep how well the slots were used, for the report; seconds of the clock, of all trials
        together, and of full runs meanwhile, whose part of the slots is not the trials'."""
        slots, study = self.study.context.resources.concurrent - ahead / wall, self.record.study
        phases: list[Any] = study.user_attrs.get(TRIAL_PHASES, [])
        phase = {"seconds": wall, "slots": slots, "busy_seconds": busy}
        study.set_user_attr(TRIAL_PHASES, [*phases, phase])
        share = busy / (wall * slots)
        LOGGER.info(
            f"trials: {duration(wall)}, {share:.0%} of the slots' time in training and evaluation"
        )
