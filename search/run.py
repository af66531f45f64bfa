"""A study from end to end: prepare, try, select, distil, report. Each step can be killed.

from search import SearchConfig, run_search
run_search(SearchConfig(teacher="my-model", corpus="my-text.jsonl"))
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from rich.console import Console

from distill.atomic import sweep
from distill.data.corpus import Corpus
from distill.questions import ContextLimit, write_next_line_questions
from distill.settings import ResolvedTraining
from search.accounts import PREPARATION_SECONDS
from search.candidate import SearchAssets, TaskQuestions
from search.cluster import available_resources, ray_cluster
from search.config import SearchConfig
from search.dashboard import study_dashboard
from search.errors import require
from search.family import write_family
from search.files import serve_workspace
from search.fitting import Free, fitted
from search.imports import load_pruner
from search.lease import drivers, leased, locked
from search.machine import Machine
from search.member_run import MemberRun, delete_finished_checkpoints
from search.members import Member
from search.notes import notes_of, precision_note
from search.objectives import Objectives, task_of
from search.prepare import Inputs, Preparation, resolve_device
from search.record import (
    FINGERPRINT,
    Record,
    check_fingerprint,
    open_study,
    require_same_settings,
)
from search.report import Outcome, finished_outcome, print_outcome
from search.resources import Resources
from search.room import Room
from search.running import Larger, Running
from search.sharing import Sharing
from search.signals import interruptible
from search.storage import open_storage
from search.storage_url import shown, take_storage_url
from search.text import corpus_parts
from search.workspace import Workspace, fingerprint
from search.workspace_access import WorkspaceAccess

FULL_RUNS = "full runs"
"""What only one driver of a study does: full runs and report."""


def run_search(config: SearchConfig) -> Outcome | None:
    """Run or resume the study that `config` describes and return what came of it; of a family,
    what came of its smallest member. None where another driver of the study does the full runs.

    Raises SearchError, PruningError or DistillError for what the user can mend before anything
    started; SearchStopped where trials keep failing; Interrupted at Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)

    def say(line: str) -> None:
        elapsed = time.monotonic() - started
        console.print(f"[{int(elapsed // 60):02d}:{int(elapsed % 60):02d}] {line}")

    with interruptible() as received:
        workspace = Workspace(config.workspace.expanduser().absolute())
        url = take_storage_url(config.storage, workspace.root)
        machine = Machine.here()
        machine.keep_to_quota(say)
        device = resolve_device(config.device).type
        resources = available_resources(
            config.resources, device, address=config.address, machine=machine
        )
        inputs = Inputs.read(config, say)
        free = None  # of this machine, without the teacher in memory
        if config.address is None:
            free = Free.now(Machine.here(), config.dashboard, device == "cuda")
        if not workspace.prepared:
            say("teacher: loading")
            inputs.model()  # before anything is written
        workspace.make()
        with locked(workspace.root):
            storage = open_storage(url, say, closing=lambda: bool(received))
            study = open_study(storage, config.study, Objectives.of(config.objectives))
            started_before = bool(study.get_trials(deepcopy=False))
            recorded = study.user_attrs.get(FINGERPRINT) if started_before else None
            training = inputs.resolved_training(recorded)
            parts = inputs.fingerprint_parts(training)
            say(f"study {config.study} in {shown(url)}, workspace {workspace.root}")
            require_same_settings(study, parts)
            corpus = inputs.packed(recorded, workspace.root, say)
            parts |= corpus_parts(corpus, inputs.needed_tokens(recorded))
            resources, fitting = fitted(
                resources, inputs.need(training), free=free, config=config.resources
            )
            with leased(study, shared=storage.shared) as driver:
                sharing = Sharing(study, storage, driver.token)
                with sharing.alone():
                    others = len(drivers(study)) > 1
                    check_fingerprint(study, parts, bound=others)
                # as recorded, so that full runs of an older version are found
                key = fingerprint(config.study, study.user_attrs[FINGERPRINT])
                for line in fitting:
                    say(line)
                session = _Session(
                    inputs,
                    training,
                    corpus,
                    workspace,
                    resources,
                    study,
                    key,
                    sharing,
                    started,
                    say,
                )
                return session.run()


@dataclass(frozen=True)
class _Session:
    """One start of a study, from its lease to its report."""

    inputs: Inputs
    training: ResolvedTraining
    corpus: Corpus
    workspace: Workspace
    resources: Resources
    study: optuna.Study
    key: str
    sharing: Sharing
    started: float
    """On the monotonic clock."""
    say: Callable[[str], None]

    def run(self) -> Outcome | None:
        for line in self._opening_lines():
            self.say(line)
        members = self.inputs.members
        records = [self._record(member) for member in members]
        reclaimed = sum([record.reclaim() for record in records])
        if reclaimed:
            self.say(f"took back {reclaimed} interrupted trials; they go on from their checkpoints")
        known = self._finished(records)
        if known:
            self.say("the study is finished; nothing is trained again")
            return self._concluded(known)
        shutil.rmtree(self.workspace.ray, ignore_errors=True)
        sweep(self.workspace.root)
        delete_finished_checkpoints(self.workspace.checkpoints(self.key), records)
        preparation = self._preparation()
        began = time.monotonic()
        assets = preparation.run()
        self._note_preparation(time.monotonic() - began)
        with contextlib.ExitStack() as stack:
            if self.inputs.config.dashboard:
                stack.enter_context(study_dashboard(self.study._storage, self.say))  # type: ignore[arg-type]
            config = self.inputs.config
            stack.enter_context(
                ray_cluster(
                    config.study,
                    self.resources,
                    dashboard=config.dashboard,
                    say=self.say,
                    address=config.address,
                )
            )
            access = None
            if config.address is not None:
                access = stack.enter_context(
                    serve_workspace(self.workspace.root, (assets.teacher,))
                )
            outcomes = self._run_members(records, preparation, assets, access)
        return None if outcomes is None else self._concluded(outcomes)

    def _note_preparation(self, seconds: float) -> None:
        """Keep what all starts of the study spent on preparation, for its ledger."""
        before = self.study.user_attrs.get(PREPARATION_SECONDS, 0.0)
        self.study.set_user_attr(PREPARATION_SECONDS, before + seconds)

    def _run_members(
        self,
        records: list[Record],
        preparation: Preparation,
        assets: SearchAssets,
        access: WorkspaceAccess | None,
    ) -> list[Outcome] | None:
        """One after the other, the largest first, since smaller ones may be cut from it.

        Where several drivers share the study, all help with the trials of all members; the first
        that is through with those of one does all full runs. None for the others.
        """
        running = Running(
            inputs=self.inputs,
            uncorrected=lambda: self._preparation(correct=False).run(),
            assets=assets,
            workspace=self.workspace,
            key=self.key,
            resources=self.resources,
            room=Room(self.resources),
            say=self.say,
            questions=self._questions(),
            access=access,
        )
        larger: list[Larger] = []
        outcomes: list[Outcome] = []
        helping = False
        for index, (member, record) in enumerate(zip(self.inputs.members, records, strict=True)):
            if member.name is not None:
                self.say(f"member {member.name}: {member.budget}")
            outputs = self._outputs(member)
            outputs.make()
            deadline = self._deadline(index)
            member_run = MemberRun(running, member, record, outputs, deadline, larger)
            member_run.find()
            if not helping and not outcomes and not self.sharing.claim(FULL_RUNS):
                self.say(f"full runs: {self.sharing.held_by(FULL_RUNS)} does them")
                helping = True
            if helping:
                continue
            outcome = member_run.finish()
            outcomes.append(outcome)
            if len(outcomes) < len(records):
                assert member.name is not None
                source = preparation.sorted_student(outputs.best, member.name)
                larger.append(Larger(member.name, outcome.winner, source))
        return outcomes if len(outcomes) == len(records) else None

    def _deadline(self, index: int) -> float | None:
        """When the full runs of a member must have ended, on the monotonic clock."""
        given = self.inputs.config.time_seconds
        if given is None:
            return None
        return self.started + given * (index + 1) / len(self.inputs.members)

    def _record(self, member: Member) -> Record:
        config = self.inputs.config
        if config.halving.own_pruner:
            self.study.pruner = load_pruner(config.halving.stopper)
        return Record(
            study=self.study,
            space=member.space,
            sampler=config.sampler,
            seed=config.seed,
            max_retries=config.max_retries,
            token=self.sharing.token,
            sharing=self.sharing,
            member=member.name,
            objectives=Objectives.of(config.objectives),
            own_pruner=config.halving.own_pruner,
        )

    def _outputs(self, member: Member) -> Workspace:
        """Where the results of a member go."""
        return self.workspace if member.name is None else self.workspace.member(member.name)

    def _preparation(self, correct: bool = True) -> Preparation:
        where = self.workspace, self.corpus, self.resources.concurrent
        return Preparation(self.inputs, self.training, *where, self.say, correct=correct)

    def _finished(self, records: list[Record]) -> list[Outcome]:
        """The outcomes of all members where nothing more is to be done, else none."""
        found = [
            finished_outcome(self._outputs(member), self.inputs.config, record)
            for member, record in zip(self.inputs.members, records, strict=True)
        ]
        return [] if None in found else [outcome for outcome in found if outcome]

    def _concluded(self, outcomes: list[Outcome]) -> Outcome:
        for outcome in outcomes:
            print_outcome(outcome, self.say)
        if len(outcomes) > 1:
            write_family(self.workspace.root, outcomes, self.say)
        return outcomes[-1]

    def _questions(self) -> TaskQuestions | None:
        """Questions for tasks that are objectives, from documents of the selection split."""
        config, inputs = self.inputs.config, self.inputs
        names = Objectives.of(config.objectives).tasks
        if not names or config.tasks is None:
            return None
        path = self.workspace.root / "selection-questions.jsonl"
        written = write_next_line_questions(
            self.corpus.texts("selection"),
            path,
            count=config.task_questions,
            seed=config.seed,
            limit=ContextLimit(inputs.teacher.tokenizer, inputs.block, config.corpus_from.bos),
        )
        require(
            written > 0,
            "the documents of the selection split are too short to build task questions from; "
            "raise --splits.selection_tokens, or leave tasks out of --objectives",
        )
        wanted = tuple((name, *task_of(name)) for name in names)
        bos = config.corpus_from.bos
        return TaskQuestions(wanted, config.tasks.absolute(), path, inputs.block, bos)

    def _opening_lines(self) -> list[str]:
        inputs = self.inputs
        return [
            f"teacher: {inputs.space.teacher}, {inputs.teacher.parameters:,} parameters",
            precision_note(inputs.teacher_dtype, inputs.device),
            *notes_of(inputs.teacher),
            *inputs.space.describe(),
            *(member.line() for member in inputs.members),
            f"training: {self.training.batch} sequences of {inputs.block} tokens a step, "
            f"{inputs.precision}; {self.resources.concurrent} at once on {inputs.device}, "
            f"{self.resources.cpus} threads each",
            *inputs.warnings(self.training),
        ]
