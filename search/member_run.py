"""One student of a study from its first candidate to its report; a family has several of these."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from distill.limits import RunLimits
from pruning import Architecture
from search.accounts import Accounts, StageFacts
from search.candidate import kept_layers
from search.errors import SearchStopped
from search.finals import FullPlan, FullRun
from search.forecast import Forecast
from search.full_stage import FullStage
from search.halving import HALVING, Rungs, measured_steps, origin_of
from search.members import Member
from search.outlook import LastRuns
from search.proof import written_line
from search.record import Record, progress_of
from search.report import Outcome, write_outcome, write_trials
from search.results import measure, place_students
from search.running import Larger, Running
from search.selection import Contest, LastStage
from search.trial_plan import TrialPlan
from search.trials import run_trials
from search.workspace import Workspace
from search.zero_shot import ZeroShot, ZeroShotPlan, pool, score_zero_shot

TRIAL_PHASES = "trial_phases"
WAIT_SECONDS = 5.0
"""Between looks at the trials of other drivers."""


class MemberRun:
    """Candidates scored untrained, trials, full runs, report: of one student that is looked for."""

    def __init__(
        self,
        running: Running,
        member: Member,
        record: Record,
        outputs: Workspace,
        deadline: float | None,
        larger: list[Larger],
    ):
        """`deadline` is on the monotonic clock; `larger` are the winners of members before."""
        self.running, self.member, self.record = running, member, record
        self.config, self.say = running.inputs.config, running.say
        self.outputs, self.deadline, self.larger = outputs, deadline, larger
        self.zero_shot: ZeroShot | None = None
        self.step_tokens = running.assets.training.batch * running.inputs.block
        """Of an optimiser step."""
        last = LastRuns.of(self.config, self.step_tokens, staged=bool(larger))
        self.forecast = Forecast(running, record, last)
        self.busy_before = 0.0

    @property
    def stage(self) -> LastStage:
        return self.forecast.last.stage

    def find(self) -> None:
        """Score candidates, untrained and after short runs, until there are enough."""
        self._leave_out_twins()
        for line in self.record.add_anchors():
            self.say(line)
        self._score_untrained()
        self.forecast.say_plan(self._trial_plan())
        self._try()
        while self._others_at_work() and not self._out_of_time():
            time.sleep(WAIT_SECONDS)
            self.record.reclaim()
            waiting = bool(self.record.trials(TrialState.WAITING))
            open_places = self.record.open_places(self.config.trials) > 0
            if open_places and (waiting or not self.record.exhausted):
                self._try()

    def _others_at_work(self) -> bool:
        """Whether trials that are missing are running elsewhere."""
        missing = self.record.finished() < self.config.trials
        return missing and bool(self.record.trials(TrialState.RUNNING))

    def finish(self) -> Outcome:
        """Full runs of the best, and the report."""
        contest = Contest.of(self.record, self.stage)
        self.forecast.say_full_runs()
        stage = FullStage(self.running, self.record, larger=self.larger)
        contest, ranking, plan = stage.distil(contest)
        return self._report(contest, ranking, plan)

    def _leave_out_twins(self) -> None:
        """Architectures whose contiguous span is the least important layers anyway, once only."""
        source = self.running.assets.sorted_teacher

        def is_twin(shape: Architecture) -> bool:
            other = replace(shape, contiguous=0)
            return bool(shape.contiguous) and (
                kept_layers(source, shape) == kept_layers(source, other)
            )

        space = self.record.space
        if len(space.choices["contiguous"]) > 1:
            self.record.space = space.without(is_twin)

    def _score_untrained(self) -> None:
        funnel, space = self.config.funnel, self.record.space
        if not funnel.candidates:
            return
        running = self.running
        shapes = pool(space, funnel.candidates, seed=self.config.seed)
        self.zero_shot = score_zero_shot(
            shapes,
            ZeroShotPlan(
                assets=running.assets,
                sequences=funnel.sequences,
                resources=running.resources,
                access=running.access,
                directory=running.workspace.root,
            ),
            room=running.room,
            say=self.say,
        )
        survivors = self.zero_shot.survivors(space, funnel.keep)
        self.record.zero_shot, self.record.allowed = self.zero_shot.useful, survivors
        self.say(
            f"zero-shot: {len(shapes)} candidates scored untrained on {self.zero_shot.tokens:,} "
            f"tokens each; {len(survivors):,} of {len(space.feasible):,} architectures may be tried"
        )

    def _try(self) -> None:
        """Run the trials that are missing."""
        config, record = self.config, self.record
        plan = self._trial_plan()
        missing = config.trials - record.finished()
        if missing <= 0:
            self.say(f"trials: {record.finished()} are finished")
            return
        compared = ", ".join(f"{tokens:,}" for tokens in record.rungs.tokens) or "never"
        self.say(
            f"trials: {record.finished()} of {config.trials} are finished; {plan.limits.tokens:,} "
            f"tokens each, compared after {compared}"
        )
        began = time.monotonic()
        self.forecast.begin()
        self.busy_before = self._busy_seconds()
        try:
            run_trials(record, plan, say=_Progress(record, config.trials, self.say).say)
        finally:
            record.release()
            self._note_phase(time.monotonic() - began)
            write_trials(record, self.outputs.trials_table)
        if record.finished() < config.trials:
            self._say_why_fewer()
        if not record.ranked() and not self._others_at_work():
            raise SearchStopped(
                "no trial finished; the reasons are in trials.csv; mend the cause and start the "
                "same command again"
            )

    def _trial_plan(self) -> TrialPlan:
        config, running, record = self.config, self.running, self.record
        halving = config.halving
        step, stage = self.step_tokens, self.stage
        steps = stage.short_tokens // step
        # The user's own pruner decides at the rungs of successive halving.
        stopper = HALVING if record.own_pruner else halving.stopper
        record.rungs = Rungs.of(stopper, steps, step, halving.first_share, halving.reduction)
        return TrialPlan(
            study=config.study,
            target=config.trials,
            assets=running.assets,
            limits=RunLimits(
                stage.short_tokens,
                measured_steps(steps, step, record.rungs, halving.reports),
                checkpoint_seconds=config.checkpoint_seconds,
            ),
            checkpoints=running.workspace.checkpoints(running.key),
            max_failures=config.max_failures,
            room=running.room,
            ray_directory=running.workspace.ray,
            tasks=running.questions,
            access=running.access,
            errors=running.workspace.ray_errors,
            out_of_time=self._out_of_time,
            full=running.full_plan() if stage.repeats_trials else None,
        )

    def _out_of_time(self) -> bool:
        """Whether what is left is needed for the full runs; never before a trial has finished."""
        if self.deadline is None or not self.record.finished():
            return False
        return time.monotonic() > self.deadline - self.forecast.full_seconds()

    def _say_why_fewer(self) -> None:
        record, config = self.record, self.config
        if record.exhausted:
            count = len(record.space.feasible if record.allowed is None else record.allowed)
            self.say(
                f"the space is exhausted: all {count} architectures that may be tried were, fewer "
                f"than --trials {config.trials}"
            )
        elif self._out_of_time():
            self.say(
                f"the time that is left is needed for the full runs: {record.finished()} of "
                f"{config.trials} trials are finished; the winners are chosen from these"
            )

    def _busy_seconds(self) -> float:
        """What all trials that this driver ran spent in training and evaluation."""
        return sum(
            progress_of(t).get("busy_seconds", 0.0)
            for t in self.record.trials()
            if t.user_attrs.get("driver") == self.record.token
        )

    def _note_phase(self, wall: float) -> None:
        """Keep how well the slots were used, for the report."""
        busy = self._busy_seconds() - self.busy_before
        resources, study = self.running.resources, self.record.study
        phases: list[Any] = study.user_attrs.get(TRIAL_PHASES, [])
        phase = {"seconds": wall, "slots": resources.concurrent, "busy_seconds": busy}
        study.set_user_attr(TRIAL_PHASES, [*phases, phase])
        share = busy / (wall * resources.concurrent)
        self.say(f"trials: {wall:.0f} s, {share:.0%} of the slots' time in training and evaluation")

    def _report(self, contest: Contest, ranking: list[FullRun], plan: FullPlan) -> Outcome:
        inputs, outputs = self.running.inputs, self.outputs
        differing = place_students(ranking, plan, inputs, outputs)
        self.say(written_line("each winner", differing))
        parameters = self.record.space.parameters_of.__getitem__
        winners, baselines = measure(contest, ranking, plan, parameters, outputs.best, self.say)
        facts = StageFacts(self.member, self.record, contest, plan, self.zero_shot)
        accounts = Accounts(facts, inputs, winners, baselines)
        return write_outcome(accounts, outputs, self.say)


def delete_finished_checkpoints(directory: Path, records: list[Record]) -> None:
    """Delete the checkpoints of trials that will not go on."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    unfinished = {origin_of(t) for record in records for t in record.trials(*states)}
    for path in directory.glob("trial-*"):
        if int(path.name.removeprefix("trial-")) not in unfinished:
            shutil.rmtree(path, ignore_errors=True)


class _Progress:
    """Numbers the lines of finished trials and says how long the rest may take."""

    def __init__(self, record: Record, target: int, say: Callable[[str], None]):
        self.record, self.target, self._say = record, target, say
        self.started, self.before = time.monotonic(), record.finished()

    def say(self, line: str) -> None:
        finished = self.record.finished()
        done = max(1, finished - self.before)
        left = (time.monotonic() - self.started) / done * max(0, self.target - finished)
        self._say(f"[{finished} of {self.target}] {line}; about {left:.0f} s left")
