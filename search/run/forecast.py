"""Forecast of the time that is left, and the end of work when the user's time is over."""

import copy
import logging
import time
from collections.abc import Iterable

import torch
from optuna.trial import FrozenTrial, TrialState

from common.errors import DistillError
from common.progress import counted
from distill import Corpus
from distill.recipes import RunProgress
from pruning import Architecture
from pruning.families import TRAINING_PASSES
from search.config.study import SearchConfig
from search.database.attributes import DRIVER, PLANNED_SPEED
from search.database.trial_facts import FINISHED_STATES, progress_of
from search.finals.outlook import LastRuns, Pace, trial_tokens
from search.needs.tables import shown_time
from search.overview import (
    FULL_RUNS,
    REPORT,
    SHARE_FOR_TRIALS,
    TRIALS,
    least_of,
    stage_of,
)
from search.plan import REPORT_SECONDS
from search.results.ledger import RunCosts
from search.run.context import PreparedStudy
from search.space.anchors import UNIFORM
from search.space.timing import threads
from search.study.record import Record
from search.trials.plan import TrialPlan

LOGGER = logging.getLogger(__name__)
TASK_SECONDS = 6.0
"""Of lm-eval besides what models compute."""
TASK_READINGS = 2
"""Sequences that a student reads for a question, of winner and teacher together: answers are short,
and share its context."""


class Forecast:
    """Forecast for one student that is looked for."""

    def __init__(self, study: PreparedStudy, record: Record, *, last: LastRuns):
        self.study, self.record, self.last = study, record, last
        self.config = study.context.config
        self.slots = study.context.resources.concurrent
        self.began, self.finished_before = time.monotonic(), record.finished()
        """When the trials of this start began, and how many were finished then."""

    def of_last_stage(self, study: PreparedStudy, last: LastRuns) -> "Forecast":
        """The same trials before another last stage, with the settings of `study`."""
        other = copy.copy(self)
        other.study, other.config, other.last = study, study.context.config, last
        return other

    def begin(self) -> None:
        """Now the trials of this start begin."""
        self.began, self.finished_before = time.monotonic(), self.record.finished()

    def log_plan(self, plan: TrialPlan) -> None:
        """Log which runs are left and about how long they take, where any trial is left."""
        missing = min(plan.target, self.architectures()) - self.record.finished()
        if missing <= 0:
            return
        last, slots = self.last, self.slots
        anchors = sum(shape is not None for shape in self.record.policy.anchors.values())
        least, most = trial_tokens(
            self.config.halving,
            self.record.policy.stopping.rungs,
            plan.limits.tokens,
            trials=missing,
            spared=max(0, anchors - self.record.finished()),
        )
        pace, basis = self._known_pace(plan)
        trials, left = (0.0, 0.0), 0.0
        if pace is not None:
            per_trial = least / missing, most / missing
            low, high = (pace.seconds([tokens] * missing, slots) for tokens in per_trial)
            trials, left = (low, high), last.seconds(pace, slots)
        LOGGER.info(
            f"plan: {counted(missing, 'trial')} of {plan.limits.tokens:,} tokens, "
            f"{_between(least, most)} in all{', by how many stop early' if least < most else ''}"
            f"{_lasting(*trials)}"
        )
        LOGGER.info(f"plan: at most {last.describe()}{_lasting(left, left)}")
        tokens = [part + last.tokens for part in (least, most)]
        total = [part + left for part in trials]
        if pace is not None:
            self._expect(TRIALS, sum(trials) / 2)
            self._expect_last(left, pace)
        LOGGER.info(f"plan: {_between(*tokens)} tokens in all{_lasting(*total)} ({basis})")
        if self.config.time_budget is not None:
            LOGGER.info(
                f"plan: fewer trials, if these do not fit --time_budget {self.config.time_budget}"
            )
        members = self.study.context.inputs.members
        if len(members) > 1 and self.record.queue.member == members[0].name:
            count = len(members)
            whole = _between(*(part * count for part in tokens))
            lasting = _lasting(*(part * count for part in total))
            LOGGER.info(
                f"plan: {whole} tokens for all {count} members, none larger than this{lasting}"
            )

    def architectures(self) -> int:
        """How many may be tried."""
        policy = self.record.policy
        solutions = set(filter(None, policy.solutions.values()))
        if policy.allowed is None:
            return len(policy.space.feasible) + len(solutions)
        return len({*policy.allowed, *filter(None, policy.anchors.values()), *solutions})

    def _known_pace(self, plan: TrialPlan) -> tuple[Pace | None, str]:
        """How fast runs are, and how that is known."""
        if self.record.finished():
            return self._pace(), "by the trials so far"
        uniform = self.record.policy.anchors[UNIFORM]
        assert uniform is not None, "a band with any architecture has a uniform shrink"
        assets = self.study.assets
        evaluated = plan.evaluations * Corpus(assets.corpus).facts["selection_tokens"]
        try:
            with threads(self.study.context.resources.cpus):
                pace = Pace.timed(assets, uniform, tokens=plan.limits.tokens, evaluated=evaluated)
            self._note_speed(pace, uniform, tokens=plan.limits.tokens, evaluated=evaluated)
        except (DistillError, RuntimeError) as problem:
            reason = (str(problem) or type(problem).__name__).splitlines()[0]
            return None, f"how long is not known: a step of the uniform shrink failed, {reason}"
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # the memory is the trials'
        return pace, (
            "by a few steps of the uniform shrink, without the start of processes; said "
            "again after the trials"
        )

    def _note_speed(self, pace: Pace, shape: Architecture, *, tokens: int, evaluated: int) -> None:
        """Keep how fast a run of this shape is, for what the report holds against the runs."""
        inputs, assets = self.study.context.inputs, self.study.assets
        costs = RunCosts.of(inputs.teacher.config, inputs.block)
        taught = tokens if assets.live else 0
        cost = costs.student(shape, trained=tokens, evaluated=evaluated, taught=taught)
        speed = cost.flops / (pace.seconds_per_token * tokens)
        self.record.study.set_user_attr(PLANNED_SPEED, speed)

    def kept_seconds(self, deadline: float) -> float:
        """Seconds before a deadline that trials leave for the last stage, by their speed so far.

        Where the last stage as it was asked for would leave them little, they have their share of
        the time, and it is cut to the rest; the report is always left room for.
        """
        pace = self._pace()
        if pace is None:
            return 0.0
        asked = self.last_seconds(self.config)
        share = (1 - SHARE_FOR_TRIALS) * (deadline - self.began)
        return min(asked, max(share, self.last_seconds(least_of(self.config))))

    def last_seconds(self, config: SearchConfig) -> float:
        """Seconds of full runs, test and report with these settings, by the speed of the trials;
        0 before a report."""
        pace = self._pace()
        if pace is None:
            return 0.0
        step = self.study.context.step_tokens
        last = LastRuns.of(config, step, staged=any(run.source for run in self.last.all_runs))
        return last.seconds(pace, self.slots) + self._report_seconds(last, pace)

    def log_full_runs(self) -> None:
        """Log how long the full runs will take, now that the speed is measured."""
        pace = self._pace()
        if pace is not None:
            seconds = self.last.seconds(pace, self.slots)
            self._expect_last(seconds, pace)
            left = _lasting(seconds, seconds)
            if self.last.count:
                LOGGER.info(f"plan: at most {self.last.describe()}{left} (by the trials)")

    def words(self, own: float) -> str:
        """Ends a line with how long the study still takes; its trials take `own` seconds by their
        number, unless their speed says more."""
        pace = self._pace()
        if pace is not None:
            own = self._trials_left(pace)
            self._expect_last(self.last.seconds(pace, self.slots), pace)
        return self.study.clock.words(own)

    def _trials_left(self, pace: Pace) -> float:
        """Seconds that the trials still take, by the tokens of those that ended."""
        ended = [
            progress.tokens
            for trial in self.record.trials(*FINISHED_STATES)
            if (progress := progress_of(trial)) is not None
        ]
        missing = min(self.config.trials, self.architectures()) - self.record.finished()
        each = sum(ended) / len(ended) if ended else self.config.short_tokens
        under_way = [progress_of(self.record.queue.trial(number)) for number in self.record.live]
        done = sum(min(each, progress.tokens) for progress in under_way if progress)
        tokens = max(0.0, missing * each - done)
        slots = min(self.slots, max(1, missing))
        return (tokens * pace.seconds_per_token + missing * pace.starting) / slots

    def _expect(self, kind: str, seconds: float) -> None:
        """A stage of this student takes so long."""
        self.study.clock.expect(stage_of(kind, self.record.queue.member), seconds)

    def _expect_last(self, seconds: float, pace: Pace) -> None:
        """Full runs take so many seconds, and the report what their evaluations do."""
        self._expect(FULL_RUNS, seconds)
        self._expect(REPORT, self._report_seconds(self.last, pace))

    def _report_seconds(self, last: LastRuns, pace: Pace) -> float:
        """Students on the test split, tasks of winner and teacher, and files."""
        config = self.config
        tested = last.count * config.splits.test_tokens / self.slots
        seconds = REPORT_SECONDS
        if config.tasks is not None:
            block = self.study.context.inputs.block
            tested += TASK_READINGS * config.task_questions * block
            seconds += TASK_SECONDS
        return seconds + tested * pace.seconds_per_token / TRAINING_PASSES

    def _pace(self) -> Pace | None:
        """Pace of the trials of this start, else of those of earlier ones, whose machine may have
        been a busier one; None before a report."""
        ended = self._of_this_start(self.record.trials(*FINISHED_STATES))
        own = ended or self._of_this_start(self.record.trials(TrialState.RUNNING))
        if not own:
            return self._pace_before()
        seconds = sum(progress.busy_seconds for progress in own)
        tokens = sum(progress.tokens - progress.resumed_tokens for progress in own)
        begun = self.record.finished() - self.finished_before + len(self.record.live)
        wall = (time.monotonic() - self.began) * self.slots
        starting = max(0.0, wall / max(1, begun) - seconds / len(own)) if ended else 0.0
        return Pace(seconds / tokens, starting)

    def _of_this_start(self, trials: Iterable[FrozenTrial]) -> list[RunProgress]:
        """How far those are that this start trained, and has heard of."""
        token = self.record.queue.coordination.token
        own = [progress_of(trial) for trial in trials if trial.user_attrs.get(DRIVER) == token]
        return [each for each in own if each and each.tokens > each.resumed_tokens]

    def _pace_before(self) -> Pace | None:
        """Pace of the trials of earlier starts, and of other drivers."""
        reported = [progress_of(trial) for trial in self.record.trials(*FINISHED_STATES)]
        seconds = sum(progress.seconds for progress in reported if progress)
        tokens = sum(progress.tokens for progress in reported if progress)
        return Pace(seconds / tokens) if tokens else None


def _between(least: int, most: int) -> str:
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _lasting(least: float, most: float) -> str:
    """Seconds in words; none where they are not known."""
    if not most:
        return ""
    times = dict.fromkeys(shown_time(seconds) for seconds in (least, most))
    return f", {' to '.join(times)}"
