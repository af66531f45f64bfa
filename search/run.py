"""A study from end to end: prepare, try, select, distil, report. Each step can be killed.

from search import SearchConfig, run_search
run_search(SearchConfig(teacher="my-model", corpus="my-text.jsonl"))
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.console import Console

from distill.checkpoint import sweep
from distill.run import report_steps
from distill.settings import TrainingSettings
from pruning import Architecture
from search.candidate import Assets
from search.cluster import Slots, ray_cluster, study_dashboard
from search.config import SearchConfig
from search.errors import SearchStopped
from search.finals import FullPlan, FullRun, run_in_full, uncorrected
from search.halving import rung_tokens
from search.lease import leased, locked
from search.prepare import Inputs, Preparation, resolve_device
from search.record import FINGERPRINT, Record, check_fingerprint, open_study
from search.report import Outcome, finished_outcome, print_outcome, write_outcome, write_trials
from search.results import measure, place_students
from search.selection import UNCORRECTED, Contest
from search.signals import interruptible
from search.storage import open_storage, shown, take_storage_url
from search.trials import TrialPlan, run_trials
from search.workspace import Workspace, fingerprint

TRIAL_PHASES = "trial_phases"


def run_search(config: SearchConfig) -> Outcome:
    """Run or resume the study that `config` describes and return what came of it.

    Raises SearchError, PruningError or DistillError for what the user can mend before anything
    started; SearchStopped where trials keep failing; Interrupted at Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)

    def say(line: str) -> None:
        elapsed = time.monotonic() - started
        console.print(f"[{int(elapsed // 60):02d}:{int(elapsed % 60):02d}] {line}")

    with interruptible():
        workspace = Workspace(config.workspace.expanduser().absolute())
        url = take_storage_url(config.storage, workspace.root)
        slots = Slots.of(config.resources, resolve_device(config.device).type)
        inputs = Inputs.read(config)
        workspace.make()
        with locked(workspace.root):
            storage = open_storage(url)
            study = open_study(storage, config.study)
            started_before = bool(study.get_trials(deepcopy=False))
            recorded = study.user_attrs.get(FINGERPRINT) if started_before else None
            training = inputs.resolved_training(recorded)
            with leased(study) as driver:
                parts = inputs.fingerprint_parts(training)
                check_fingerprint(study, parts)
                key = fingerprint(config.study, parts)
                say(f"study {config.study} in {shown(url)}, workspace {workspace.root}")
                session = _Session(
                    inputs, training, workspace, slots, study, key, driver.token, say
                )
                return session.run()


class _Session:
    """One start of a study, from its lease to its report."""

    def __init__(
        self,
        inputs: Inputs,
        training: TrainingSettings,
        workspace: Workspace,
        slots: Slots,
        study: optuna.Study,
        key: str,
        token: str,
        say: Callable[[str], None],
    ):
        self.inputs, self.training, self.workspace = inputs, training, workspace
        self.config, self.slots, self.study, self.say = inputs.config, slots, study, say
        self.checkpoints, self.full = workspace.checkpoints(key), workspace.full(key)
        config = inputs.config
        self.record = Record(
            study, inputs.space, config.sampler, config.seed, config.max_retries, token
        )

    def run(self) -> Outcome:
        for line in self._opening_lines():
            self.say(line)
        reclaimed = self.record.reclaim()
        if reclaimed:
            self.say(f"took back {reclaimed} interrupted trials; they go on from their checkpoints")
        known = finished_outcome(self.workspace, self.config, self.record)
        if known is not None:
            self.say("the study is finished; nothing is trained again")
            print_outcome(known, self.say)
            return known
        shutil.rmtree(self.workspace.ray, ignore_errors=True)
        sweep(self.workspace.root)
        self._delete_finished_checkpoints()
        assets = Preparation(
            self.inputs, self.training, self.workspace, self.slots.concurrent, self.say
        ).run()
        for line in self.record.add_anchors():
            self.say(line)
        with contextlib.ExitStack() as stack:
            if self.config.dashboard:
                stack.enter_context(study_dashboard(self.study._storage, self.say))  # type: ignore[arg-type]
            stack.enter_context(
                ray_cluster(self.config.study, self.slots, self.config.dashboard, self.say)
            )
            self._try(assets)
            contest, order, plan = self._distil(assets)
        return self._report(contest, order, plan)

    def _opening_lines(self) -> list[str]:
        teacher = self.inputs.teacher
        return [
            f"teacher: {self.inputs.space.teacher}, {teacher.parameters:,} parameters",
            *self.inputs.space.describe(self.inputs.budget),
            f"training: {self.training.batch} sequences of {self.inputs.block} tokens a step, "
            f"{self.inputs.precision}; {self.slots.concurrent} at once on {self.inputs.device}, "
            f"{self.slots.cpus} threads each",
            *self.inputs.warnings(self.training),
        ]

    def _try(self, assets: Assets) -> None:
        """Run the trials that are missing."""
        config, record = self.config, self.record
        missing = config.trials - record.finished()
        if missing <= 0:
            self.say(f"trials: {record.finished()} are finished")
            return
        assert self.training.batch is not None
        step = self.training.batch * self.inputs.block
        ends = report_steps(max(1, config.short_tokens // step), config.halving.reports)
        halving = config.halving
        rungs = rung_tokens([s * step for s in ends], halving.first_share, halving.reduction)
        record.use_halving(rungs, halving.reduction)
        compared = ", ".join(f"{tokens:,}" for tokens in rungs) or "never"
        self.say(
            f"trials: {record.finished()} of {config.trials} are finished; {ends[-1] * step:,} "
            f"tokens each, compared after {compared}"
        )
        plan = TrialPlan(
            study=config.study,
            target=config.trials,
            assets=assets,
            tokens=config.short_tokens,
            reports=halving.reports,
            checkpoints=self.checkpoints,
            checkpoint_seconds=config.checkpoint_seconds,
            max_failures=config.max_failures,
            concurrent=self.slots.concurrent,
            cpus=self.slots.cpus,
            gpus=self.slots.gpus,
            ray_directory=self.workspace.ray,
        )
        began = time.monotonic()
        try:
            run_trials(record, plan, _Progress(record, config.trials, self.say).say)
        except BaseException:
            record.release()
            raise
        finally:
            self._note_phase(time.monotonic() - began)
            write_trials(record, self.workspace.trials_table)
        if record.exhausted and record.finished() < config.trials:
            self.say(
                f"the space is exhausted: all {len(record.space.feasible)} architectures inside "
                f"the budget were tried, fewer than --trials {config.trials}"
            )
        if not record.ranked():
            raise SearchStopped(
                "no trial finished; the reasons are in trials.csv; mend the cause and start the "
                "same command again"
            )

    def _note_phase(self, wall: float) -> None:
        """Keep how well the slots were used, for the report."""
        busy = sum(
            t.user_attrs.get("busy_seconds", 0.0)
            for t in self.record.trials()
            if t.user_attrs.get("driver") == self.record.token
        )
        phases: list[Any] = self.study.user_attrs.get(TRIAL_PHASES, [])
        phase = {"seconds": wall, "slots": self.slots.concurrent, "busy_seconds": busy}
        self.study.set_user_attr(TRIAL_PHASES, [*phases, phase])
        share = busy / (wall * self.slots.concurrent)
        self.say(f"trials: {wall:.0f} s, {share:.0%} of the slots' time in training and evaluation")

    def _delete_finished_checkpoints(self) -> None:
        open_origins = {
            t.user_attrs.get("origin")
            for t in self.record.trials()
            if t.state in (TrialState.RUNNING, TrialState.WAITING)
        }
        for path in self.checkpoints.glob("trial-*"):
            if int(path.name.removeprefix("trial-")) not in open_origins:
                shutil.rmtree(path, ignore_errors=True)

    def _distil(self, assets: Assets) -> tuple[Contest, list[Architecture], FullPlan]:
        """Distil the best in full, with what they are held against."""
        config = self.config
        contest = Contest.of(self.record, config.winners)
        plan = FullPlan(
            assets=assets,
            tokens=config.full_tokens,
            directory=self.full,
            checkpoints=self.checkpoints,
            checkpoint_seconds=config.checkpoint_seconds,
            reports=config.halving.reports,
            dtype=str(self.inputs.teacher.dtype).removeprefix("torch."),
            concurrent=self.slots.concurrent,
            cpus=self.slots.cpus,
            gpus=self.slots.gpus,
        )
        shapes = ", ".join(str(shape) for shape in contest.candidates)
        self.say(f"full distillation, {config.full_tokens:,} tokens each: {shapes}")
        first = run_in_full(contest.first_round(), plan, self.say)
        order = contest.order(first)
        run_in_full(contest.second_round(order, config.seeds), plan, self.say)
        self._distil_uncorrected(order[0], plan)
        return contest, order, plan

    def _distil_uncorrected(self, winner: Architecture, plan: FullPlan) -> None:
        """What the winner would be without teacher correction, where there was one."""
        if not self.config.correction.tokens:
            return
        self.say("correction: the winner's shape once more, from the teacher as it was")
        arguments = self.inputs, self.training, self.workspace, self.slots.concurrent, self.say
        assets = Preparation(*arguments, correct=False).run()
        run_in_full([FullRun(UNCORRECTED, winner)], uncorrected(plan, assets), self.say)

    def _report(self, contest: Contest, order: list[Architecture], plan: FullPlan) -> Outcome:
        best, folder = self.workspace.best, self.workspace.winners
        place_students(order, plan, self.inputs, best, folder)
        count = self.record.space.parameters_of
        winners, baselines = measure(
            contest, order, plan, count.__getitem__, self.config.seeds, best, self.say
        )
        outcome = write_outcome(
            winners,
            baselines,
            self.inputs,
            self.training,
            plan,
            self.workspace,
            self.record,
            self.say,
        )
        print_outcome(outcome, self.say)
        return outcome


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
