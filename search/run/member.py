"""Member of a study: one student from its first candidate to its report."""

import logging
import time
from dataclasses import dataclass, replace

from common.progress import counted
from search.database.trial_facts import architecture_of
from search.finals.measure import Measurement
from search.finals.outlook import LastRuns
from search.finals.runner import FullRunner
from search.finals.selection import FinalSelection
from search.finals.testing import StudentTests
from search.inputs.members import Member
from search.overview import FULL_RUNS, REPORT, LastStageCut, stage_of
from search.per_layer.combinations import Round
from search.report.finished_search import FinishedSearch
from search.report.outcome import Outcome, write_outcome
from search.report.winner_files import place_students
from search.run.context import ParentStudent, PreparedStudy
from search.run.forecast import Forecast
from search.run.full_stage import FullStage
from search.run.per_layer_stage import PerLayerStage
from search.run.trial_preparation import trial_policy, with_combinations
from search.run.trial_stage import TrialStage
from search.study.policy import TrialPolicy
from search.study.queue import TrialQueue
from search.study.record import Record
from search.trials.zero_shot import ZeroShot
from search.workers.full_runs import FullPlan, FullRun
from workspace.layout import Workspace
from workspace.proof import written_line

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trials:
    """Outcome of the trials of a student."""

    record: Record
    """Every trial."""
    zero_shot: ZeroShot | None
    """Scores of untrained candidates, where there are any."""
    forecast: Forecast
    """How long full runs take, by the speed of the trials."""
    rounds: tuple[Round, ...]
    """Of combinations of blocks; () where the layers of all students are alike."""
    ahead: FullRunner | None = None
    """Full runs that were begun meanwhile; None where none may be."""

    @property
    def left_out(self) -> list[str]:
        """What there was no time for."""
        forecast = self.forecast
        most = min(forecast.config.trials, forecast.architectures())
        missing = most - self.record.finished()
        shown = counted(missing, "trial")
        return [shown] if missing > 0 and not self.record.exhausted else []


@dataclass(frozen=True)
class Finals:
    """Outcome of the full runs of a student."""

    selection: FinalSelection
    """The students that were distilled in full, and what they are held against."""
    ranking: list[FullRun]
    """The winners' runs, the best first."""
    plan: FullPlan
    """How they were run."""
    cut: LastStageCut
    """What of them there was time for."""


@dataclass(frozen=True)
class MemberRun:
    """The steps of one student, each to be taken once and in order."""

    study: PreparedStudy
    """What all members share."""
    member: Member
    """The student that is looked for."""
    queue: TrialQueue
    """Its trials."""
    parents: tuple[ParentStudent, ...]
    """Winners of larger members, which it may be cut from."""

    @property
    def outputs(self) -> Workspace:
        """Where its results go."""
        return self.study.context.outputs(self.member)

    def run_trials(self) -> Trials:
        """Score candidates, untrained and after short runs, until there are enough."""
        context, member = self.study.context, self.member
        if member.name is not None:
            LOGGER.info(f"member {member.name}: {member.budget}")
        self.outputs.make()
        deadline = context.deadline(member)
        last = LastRuns.of(context.config, context.step_tokens, staged=bool(self.parents))
        policy, zero_shot = trial_policy(
            self.study, member.space, queue=self.queue, stage=last.stage
        )
        rounds: list[Round] = []
        for number in range(1, self._rounds + 1):
            if rounds:
                self._trial_stage(policy, last, deadline=deadline).run(policy.named)
                if policy.named >= context.config.trials:
                    LOGGER.info(f"per-layer: no round {number}, since --trials has no place for it")
                    break
            rounds.append(self._round(number, policy))
            policy = with_combinations(policy, rounds)
        if rounds and policy.named > context.config.trials:
            LOGGER.info(
                f"warning: {policy.named} anchors and combinations of blocks are to be tried, and "
                f"--trials is {context.config.trials}: the last are left out, and nothing is "
                "proposed"
            )
        stage = self._trial_stage(policy, last, deadline=deadline)
        stage.ahead = self._ahead(stage.record, last)
        stage.run()
        return Trials(stage.record, zero_shot, stage.forecast, tuple(rounds), stage.ahead)

    def _ahead(self, record: Record, last: LastRuns) -> FullRunner | None:
        """Begins full runs that are certain while trials run: not where other drivers may do them,
        where the same student may be cut from a larger one, or where slots are of another kind."""
        study, config = self.study, self.study.context.config
        alone = config.storage is None and not self.parents
        if config.time_seconds is not None:  # which may be too short for them
            return None
        if not alone or study.full_slots is not study.slots:
            return None
        certain = FinalSelection.certain(record, last.stage)
        return FullRunner(study.full_plan(last.count), study.slots, certain)

    @property
    def _rounds(self) -> int:
        """Of scores and solutions, for students whose layers differ."""
        inputs = self.study.context.inputs
        return 0 if inputs.per_layer is None else inputs.config.per_layer.rounds

    def _round(self, number: int, policy: TrialPolicy) -> Round:
        """Combinations of blocks; from the second round on scored in the best student so far."""
        plan = self.study.context.inputs.per_layer
        assert plan is not None, "there are rounds where layers may differ alone"
        ranked = map(architecture_of, Record(self.queue, policy).ranked())
        around = next((shape for shape in ranked if shape.per_layer), None)
        return PerLayerStage(self.study, plan).round(number, around if number > 1 else None)

    def _trial_stage(
        self, policy: TrialPolicy, last: LastRuns, *, deadline: float | None
    ) -> TrialStage:
        record = Record(self.queue, policy, self.study.audience.of_trials(self.queue))
        forecast = Forecast(self.study, record, last=last)
        return TrialStage(
            self.study, record, forecast=forecast, outputs=self.outputs, deadline=deadline
        )

    def run_finals(self, trials: Trials) -> Finals:
        """Full runs of the best, and of what they are held against, as far as there is time."""
        cut = self._cut(trials.forecast)
        study = self.study.with_settings(cut.config)
        last = LastRuns.of(cut.config, study.context.step_tokens, staged=bool(self.parents))
        selection = FinalSelection.of(trials.record, last.stage)
        trials.forecast.of_last_stage(study, last).log_full_runs()
        study.clock.begin(stage_of(FULL_RUNS, self.member.name))
        stage = FullStage(
            study,
            trials.record,
            larger=list(self.parents),
            expected=len(last.all_runs),
            ahead=trials.ahead,
        )
        return Finals(*stage.distil(selection), cut)

    def _cut(self, forecast: Forecast) -> LastStageCut:
        """The last stage within the time that is left; all of it where there is no limit."""
        context = self.study.context
        deadline = context.deadline(self.member)
        if deadline is None:
            return LastStageCut(context.config)
        left = deadline - time.monotonic()
        cut = LastStageCut.of(
            context.config, left, step=context.step_tokens, seconds=forecast.last_seconds
        )
        for line in cut.lines(left):
            LOGGER.info(line)
        return cut

    def report(self, trials: Trials, finals: Finals) -> Outcome:
        """Write the winners and every figure of them."""
        selection, ranking, plan = finals.selection, finals.ranking, finals.plan
        inputs, outputs = self.study.context.inputs, self.outputs
        self.study.clock.begin(stage_of(REPORT, self.member.name))
        differing = place_students(ranking, plan, inputs=inputs, outputs=outputs)
        LOGGER.info(written_line("each winner", differing))
        students = Measurement(
            StudentTests(plan, self.study.single_slots),
            trials.record.space.parameter_count,
            outputs.best,
        ).students(selection, ranking)
        search = FinishedSearch(
            replace(inputs, config=finals.cut.config),
            self.member,
            trials.record,
            selection,
            plan,
            trials.zero_shot,
            students,
            trials.rounds,
            self.study.library,
            finals.cut.left_out,
        )
        return write_outcome(search, outputs)
