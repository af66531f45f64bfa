"""One student of a study from its first candidate to its report; a family has several of these."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from pruning import Architecture
from search.accounts import Accounts, StageFacts
from search.candidate import Assets, TaskQuestions, kept_layers
from search.cluster import Slots
from search.errors import SearchStopped
from search.files import Files
from search.finals import OF, FullPlan, FullRun, run_in_full, uncorrected
from search.halving import HALVING, Rungs, measured_steps, origin_of
from search.members import Member
from search.prepare import Inputs
from search.record import FINISHED, Record, progress_of
from search.report import Outcome, write_outcome, write_trials
from search.results import measure, place_students
from search.selection import CANDIDATE, UNCORRECTED, Contest
from search.trials import TrialPlan, run_trials
from search.workspace import Workspace
from search.zero_shot import ZeroShot, pool, score_zero_shot

TRIAL_PHASES = "trial_phases"
WAIT_SECONDS = 5.0
"""Between looks at the trials of other drivers."""
BASELINES = 2
"""Full runs of the first round that are no candidates: uniform shrink and random architecture."""


@dataclass(frozen=True)
class Running:
    """What all members of a study share while it runs."""

    inputs: Inputs
    uncorrected: Callable[[], Assets]
    """Computes the same assets from the teacher as the user gave it."""
    assets: Assets
    workspace: Workspace
    key: str
    """Fingerprint of the study, which names its checkpoints and full runs."""
    slots: Slots
    say: Callable[[str], None]
    questions: TaskQuestions | None
    files: Files | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""

    def full_plan(self) -> FullPlan:
        config = self.inputs.config
        return FullPlan(
            assets=self.assets,
            tokens=config.full_tokens,
            directory=self.workspace.full(self.key),
            checkpoints=self.workspace.checkpoints(self.key),
            checkpoint_seconds=config.checkpoint_seconds,
            reports=config.full_reports,
            dtype=str(self.inputs.teacher.dtype).removeprefix("torch."),
            concurrent=self.slots.concurrent,
            cpus=self.slots.cpus,
            gpus=self.slots.gpus,
            files=self.files,
            errors=self.workspace.ray_errors,
        )


@dataclass(frozen=True)
class Larger:
    """The winner of a larger member of a family, sorted, from which smaller ones may be cut."""

    name: str
    architecture: Architecture
    sorted_student: Path


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
        self.began, self.finished_before = time.monotonic(), 0
        """When the trials of this start began, and how many were finished then."""
        self.busy_before = 0.0

    def find(self) -> None:
        """Score candidates, untrained and after short runs, until there are enough."""
        self._leave_out_twins()
        for line in self.record.add_anchors():
            self.say(line)
        self._score_untrained()
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
        contest, order, plan = self._distil()
        return self._report(contest, order, plan)

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
        shapes = pool(space, funnel.candidates, self.config.seed)
        self.zero_shot = score_zero_shot(
            shapes,
            running.assets,
            funnel.sequences,
            running.slots,
            running.files,
            running.workspace.root,
            self.say,
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
            f"trials: {record.finished()} of {config.trials} are finished; {plan.tokens:,} "
            f"tokens each, compared after {compared}"
        )
        self.began, self.finished_before = time.monotonic(), record.finished()
        self.busy_before = self._busy_seconds()
        try:
            run_trials(record, plan, _Progress(record, config.trials, self.say).say)
        finally:
            record.release()
            self._note_phase(time.monotonic() - self.began)
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
        training, halving = running.assets.training, config.halving
        assert training.batch is not None
        step = training.batch * running.inputs.block
        steps = max(1, config.short_tokens // step)
        # The user's own pruner decides at the rungs of successive halving.
        stopper = HALVING if record.own_pruner else halving.stopper
        record.rungs = Rungs.of(stopper, steps, step, halving.first_share, halving.reduction)
        return TrialPlan(
            study=config.study,
            target=config.trials,
            assets=running.assets,
            tokens=steps * step,
            reports=measured_steps(steps, step, record.rungs, halving.reports),
            checkpoints=running.workspace.checkpoints(running.key),
            checkpoint_seconds=config.checkpoint_seconds,
            max_failures=config.max_failures,
            concurrent=running.slots.concurrent,
            cpus=running.slots.cpus,
            gpus=running.slots.gpus,
            ray_directory=running.workspace.ray,
            tasks=running.questions,
            files=running.files,
            errors=running.workspace.ray_errors,
            out_of_time=self._out_of_time,
        )

    def _out_of_time(self) -> bool:
        """Whether what is left is needed for the full runs; never before a trial has finished."""
        if self.deadline is None or not self.record.finished():
            return False
        return time.monotonic() > self.deadline - self._full_seconds()

    def _full_seconds(self) -> float:
        """What the full runs will take, by the speed of the trials so far."""
        reported = [progress_of(trial) for trial in self.record.trials(*FINISHED)]
        seconds = sum(facts["seconds"] for facts in reported if facts)
        tokens = sum(facts["tokens"] for facts in reported if facts)
        if not tokens:
            return 0.0
        config = self.config
        begun = self.record.finished() - self.finished_before + len(self.record.live)
        wall = (time.monotonic() - self.began) * self.running.slots.concurrent
        starting = max(0.0, wall / max(1, begun) - seconds / len(reported))
        first = (config.winners + config.ties) * config.finalist_seeds + BASELINES
        second = 3 * (config.seeds - 1) + bool(self.larger) + bool(config.correction.tokens)
        slots = self.running.slots.concurrent
        rounds = ceil(first / slots) + ceil(second / slots) + 1
        longest = (config.scratch_tokens or config.full_tokens) - config.full_tokens
        read = rounds * config.full_tokens + longest
        return float(rounds * starting + read * seconds / tokens)

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
        slots, study = self.running.slots, self.record.study
        phases: list[Any] = study.user_attrs.get(TRIAL_PHASES, [])
        phase = {"seconds": wall, "slots": slots.concurrent, "busy_seconds": busy}
        study.set_user_attr(TRIAL_PHASES, [*phases, phase])
        share = busy / (wall * slots.concurrent)
        self.say(f"trials: {wall:.0f} s, {share:.0%} of the slots' time in training and evaluation")

    def _distil(self) -> tuple[Contest, list[Architecture], FullPlan]:
        """Distil the best in full, with what they are held against."""
        config = self.config
        contest = Contest.of(self.record, config.winners, config.ties, config.scratch_tokens)
        plan = self.running.full_plan()
        shapes = ", ".join(str(shape) for shape in contest.candidates)
        self.say(f"full distillation, {config.full_tokens:,} tokens each: {shapes}")
        if contest.tied:
            self.say(
                f"of these, {len(contest.tied)} because the short runs cannot tell them from the "
                "last of the winners"
            )
        first = run_in_full(contest.first_round(config.finalist_seeds), plan, self.say)
        order = contest.order(first)
        contest, plan = self._staged(contest, order, plan)
        run_in_full(contest.second_round(order, config.seeds), plan, self.say)
        self._distil_uncorrected(order[0], plan)
        return contest, order, plan

    def _staged(
        self, contest: Contest, order: list[Architecture], plan: FullPlan
    ) -> tuple[Contest, FullPlan]:
        """Cut the best also from the next larger member, and keep what is better.

        Minitron (arXiv 2407.14679) finds a small model better cut from a distilled larger one; the
        teacher stays the original.
        """
        winner = order[0]
        fitting = [one for one in self.larger if _is_inside(winner, one.architecture)]
        if not fitting:
            if self.larger:
                self.say(f"staged: {winner} is not inside a larger member; cut from the teacher")
            return contest, plan
        source = fitting[-1]
        named = f"{source.name}{OF}{source.sorted_student.name.removeprefix('sorted-')[:8]}"
        plan = replace(plan, sources={named: source.sorted_student})
        direct = contest.run(CANDIDATE, winner)
        staged = replace(direct, source=named)
        found = run_in_full([direct, staged], plan, self.say)
        if staged not in found:
            return contest, plan
        kls = [found[run].selection.means()["kl"] for run in (direct, staged)]
        better = kls[1] < kls[0]
        self.say(
            f"staged: selection KL {kls[1]:.4f} cut from {source.name}, {kls[0]:.4f} cut from the "
            f"teacher; {'the first' if better else 'the second'} is kept"
        )
        return (replace(contest, sources={winner: named}) if better else contest), plan

    def _distil_uncorrected(self, winner: Architecture, plan: FullPlan) -> None:
        """What the winner would be without teacher correction, where there was one."""
        if not self.config.correction.tokens:
            return
        self.say("correction: the winner's shape once more, from the teacher as it was")
        apart = uncorrected(plan, self.running.uncorrected())
        run_in_full([FullRun(UNCORRECTED, winner)], apart, self.say)

    def _report(self, contest: Contest, order: list[Architecture], plan: FullPlan) -> Outcome:
        inputs, outputs = self.running.inputs, self.outputs
        place_students(contest, order, plan, inputs, outputs.best, outputs.winners)
        config = self.config
        winners, baselines = measure(
            contest,
            order,
            plan,
            self.record.space.parameters_of.__getitem__,
            config.seeds,
            config.finalist_seeds,
            outputs.best,
            self.say,
        )
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


def _is_inside(small: Architecture, large: Architecture) -> bool:
    """Whether `small` can be cut out of `large`."""
    axes = ("layers", "hidden", "heads", "kv_heads", "ffn", "experts", "expert_ffn")
    fits = all(getattr(small, axis) <= getattr(large, axis) for axis in axes)
    return fits and small.heads // small.kv_heads <= large.heads // large.kv_heads


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
