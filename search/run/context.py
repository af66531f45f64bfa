"""The context of a study: what its members share from its opening to its report."""

from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from distill.data import Corpus
from distill.train import ResolvedTraining, RunLimits
from pruning import Architecture
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.config.study import SearchConfig
from search.dashboards.audience import Audience
from search.database.coordination import Coordination
from search.inputs.inputs import Inputs
from search.inputs.members import Member
from search.library import Library
from search.overview import StudyClock
from search.run.preparation import Preparation
from search.study.queue import TrialQueue
from search.workers.access import WorkspaceAccess
from search.workers.candidate import SearchAssets, TaskQuestions
from search.workers.full_runs import FullPlan
from search.workers.slots import SlotPool
from workspace.layout import Workspace
from workspace.pieces import Compute, compute_here


@dataclass(frozen=True)
class StudyContext:
    """One start of a study, opened: nobody else is at its workspace, and its settings agree."""

    inputs: Inputs
    """What the user gave, read and checked."""
    training: ResolvedTraining
    """With what the study's first start derived filled in."""
    corpus: Corpus
    """Packed, in the workspace."""
    workspace: Workspace
    """Where files go."""
    resources: Resources
    """What trials may take at once."""
    full_resources: Resources
    """What full runs may take at once."""
    study: optuna.Study
    """Where trials are recorded."""
    key: str
    """Fingerprint of the study, which names its checkpoints and full runs."""
    coordination: Coordination
    """This driver, and what it settles with other drivers."""
    started: float
    """On the monotonic clock."""

    @property
    def config(self) -> SearchConfig:
        """The user's settings."""
        return self.inputs.config

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step."""
        return self.training.batch * self.inputs.block

    @property
    def checkpoints(self) -> Path:
        """Where runs that may go on keep their state."""
        return self.workspace.checkpoints(self.key)

    def queue(self, member: Member) -> TrialQueue:
        """The trials of a member."""
        retries = self.config.max_retries
        return TrialQueue(self.study, self.coordination, retries, member=member.name)

    def outputs(self, member: Member) -> Workspace:
        """Where the results of a member go."""
        return self.workspace if member.name is None else self.workspace.member(member.name)

    def finished_full_runs(self) -> int:
        """Full runs as long as they are now that earlier starts finished, of a family an even
        share."""
        found = self.workspace.full(self.key).glob(f"*-{self.config.full_tokens}/done.json")
        return len(list(found)) // len(self.inputs.members)

    def deadline(self, member: Member) -> float | None:
        """When the full runs of a member must have ended, on the monotonic clock."""
        given = self.config.time_seconds
        if given is None:
            return None
        names = [each.name for each in self.inputs.members]
        return self.started + given * (names.index(member.name) + 1) / len(names)

    def preparation(self, compute: Compute = compute_here) -> Preparation:
        """Preparation of the assets by `compute`."""
        where = self.workspace, self.corpus, self.resources.concurrent
        return Preparation(self.inputs, self.training, *where, compute=compute)


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose runs can begin: everything that they read is there, and Ray is up."""

    context: StudyContext
    """The study."""
    preparation: Preparation
    """What computed the assets, and sorts the students that smaller ones may be cut from."""
    assets: SearchAssets
    """What runs read."""
    room: Room
    """How many trials go at once."""
    slots: SlotPool
    """The processes that they run in, one after the other."""
    full_slots: SlotPool
    """Those of full runs: the same, unless more or fewer processes train one together."""
    single_slots: SlotPool
    """Those of one process each, for all other tasks: the same, where runs are of one process."""
    questions: TaskQuestions | None
    """Of tasks that are objectives; None where there are none."""
    access: WorkspaceAccess | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""
    audience: Audience
    """Who is told of it besides the database."""
    clock: StudyClock
    """Stages, and how long they take."""
    library: Library | None = None
    """Blocks of students whose layers differ; None where the layers of all are alike."""

    def with_settings(self, config: SearchConfig) -> "PreparedStudy":
        """The same study with other settings of its last stage."""
        inputs = replace(self.context.inputs, config=config)
        return replace(self, context=replace(self.context, inputs=inputs))

    def uncorrected_assets(self) -> SearchAssets:
        """Compute the same assets from the teacher as the user gave it."""
        other = replace(self.preparation, correct=False)
        other.check()
        return other.run()

    def full_plan(self, expected: int = 0, *, tokens: int | None = None) -> FullPlan:
        """How full runs are run, of which so many are expected at most; of other `tokens` where
        they are given."""
        context = self.context
        config, workspace = context.config, context.workspace
        return FullPlan(
            assets=self.assets,
            limits=RunLimits(
                tokens or config.full_tokens,
                config.full_reports,
                checkpoint_seconds=config.checkpoint_seconds,
            ),
            directory=workspace.full(context.key),
            checkpoints=context.checkpoints,
            dtype=str(context.inputs.teacher.dtype).removeprefix("torch."),
            room=self.full_slots.room,
            access=self.access,
            errors=workspace.ray_errors,
            study=config.study,
            ended=self.audience.of_full_runs,
            expected=expected,
            words=self.clock.words,
        )

    def trial_plan(self) -> FullPlan:
        """The same of full runs as long as trials, which these are."""
        return self.full_plan(tokens=self.context.config.short_tokens)


@dataclass(frozen=True)
class ParentStudent:
    """The winner of a larger member of a family, sorted, from which smaller ones may be cut."""

    name: str
    """Of the member."""
    architecture: Architecture
    """Of the winner."""
    sorted_student: Path
    """Its checkpoint with the most important units first."""
