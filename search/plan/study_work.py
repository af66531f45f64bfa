"""Work of a study: preparation, trials, full runs and evidence, each with tokens and operations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from distill.loss import CROSS_ENTROPY
from distill.train import LIVE
from pruning import Architecture
from search.cluster.resources import Resources
from search.finals.outlook import LastRuns, Pace, trial_tokens
from search.inputs.members import Member
from search.inputs.outline import StudyOutline
from search.inputs.preparing import block_passes, target_tokens
from search.needs.passes import importance_tokens
from search.needs.work import Work
from search.plan.speed import NOT_KNOWN, Speed
from search.results.ledger import Cost, RunCosts
from search.space.anchors import UNIFORM
from search.study.early_stopping import Rungs, measured_steps
from search.workers.spreading import worth_spreading


@dataclass(frozen=True)
class StudyWork:
    """Work of a study whose students all cost what the uniform shrink of their budget does."""

    outline: StudyOutline
    """Sizes of the study."""
    resources: Resources
    """Of trials."""
    full_resources: Resources
    """Of full runs."""
    speed: Speed = NOT_KNOWN
    """How long operations take."""

    def parts(self) -> list[Work]:
        """In the order in which it is done; of a family, all members together."""
        before = [*self._preparation(), *self._blocks(), *self._zero_shot()]
        return [*before, self.trials, self._last_runs()]

    @property
    def trials(self) -> Work:
        """All trials, as if none were stopped early."""
        return self._trials(least=False)

    @property
    def fewest_trials(self) -> Work:
        """Trials of which as many are stopped as where the search learns nothing."""
        return self._trials(least=True)

    @cached_property
    def last(self) -> list[LastRuns]:
        """Runs after the trials, of each member."""
        config, step = self.outline.config, self.outline.step_tokens
        return [
            LastRuns.of(config, step, staged=number > 0)
            for number in range(len(self.outline.members))
        ]

    @property
    def live(self) -> bool:
        """Whether the teacher reads beside every student."""
        training = self.outline.training
        return training.targets == LIVE and training.loss != CROSS_ENTROPY

    @cached_property
    def shapes(self) -> list[Architecture]:
        """The uniform shrink of each member."""
        found = [member.space.anchors()[UNIFORM] for member in self.outline.members]
        return [shape for shape in found if shape is not None]

    @cached_property
    def _costs(self) -> RunCosts:
        return RunCosts.of(self.outline.teacher.config, self.outline.block)

    @property
    def _held_out(self) -> tuple[int, int]:
        """Tokens of selection and test, at most."""
        splits = self.outline.config.splits
        return splits.selection_tokens, splits.test_tokens

    def _preparation(self) -> Iterator[Work]:
        """Of the teacher; importance and targets on all slots where that is worth it, the
        correction by one process."""
        outline = self.outline
        config, members = outline.config, outline.members
        if tokens := config.correction.tokens:
            cost = self._costs.of_teacher(trained=tokens)
            seconds = self._seconds(cost.flops, self.speed.training)
            yield Work(
                what="correction of the teacher",
                runs=1,
                tokens=tokens,
                training_flops=cost.flops,
                seconds=seconds,
            )
        longest = max(config.full_tokens, config.scratch_tokens or 0)
        layers = members[0].space.teacher.layers
        read = {
            "importance": importance_tokens(
                config.importance.settings,
                config.calibration_sequences,
                layers=layers,
                block=outline.block,
            ),
            "the teacher's targets": target_tokens(
                config,
                stored=not self.live and outline.training.loss != CROSS_ENTROPY,
                held_out=sum(self._held_out),
                available=longest,
            ),
        }
        times = 2 if config.correction.tokens else 1  # once more for the uncorrected teacher
        speeds = self.speed.reading, self.speed.answering
        for (what, tokens), each in zip(read.items(), speeds, strict=True):
            cost = self._costs.of_teacher(read=tokens * times)
            yield Work(
                what=what,
                runs=times,
                tokens=tokens * times,
                forward_flops=cost.flops,
                seconds=self._seconds(cost.flops / self.readers, each),
            )

    def _blocks(self) -> Iterator[Work]:
        """Training and scores of blocks, as if all were as large as the teacher's."""
        plan, settings = self.outline.per_layer, self.outline.config.per_layer
        if plan is None:
            return
        sequences = min(settings.sequences, self._held_out[0] // self.outline.block)
        passes = settings.rounds * block_passes(plan.variants) * sequences
        cost = self._costs.student(
            plan.space.teacher,
            trained=settings.tokens,
            evaluated=passes * self.outline.block,
            taught=settings.tokens,
        )
        yield Work(
            what="blocks of layers and their scores",
            runs=len(plan.variants),
            tokens=settings.tokens,
            training_flops=cost.student_flops,
            forward_flops=cost.teacher_flops + cost.evaluation_flops,
            seconds=self._seconds(cost.flops / self._slots, self.speed.training),
        )

    def _zero_shot(self) -> Iterator[Work]:
        funnel, block = self.outline.config.funnel, self.outline.block
        if not funnel.candidates:
            return
        tokens = min(funnel.sequences, self._held_out[0] // block) * block
        count = funnel.candidates
        flops = sum(self._costs.forward_flops(shape) * tokens * count for shape in self.shapes)
        seconds = self._seconds(flops / self._slots, self.speed.training)
        runs = count * len(self.shapes)
        yield Work(
            what="scores before training",
            runs=runs,
            tokens=tokens * runs,
            forward_flops=flops,
            seconds=seconds,
        )

    def _trials(self, *, least: bool) -> Work:
        """The trials of all members, as few or as many of them as come to their end."""
        config, stage = self.outline.config, self.last[0].stage
        step, halving = self.outline.step_tokens, config.halving
        rungs = Rungs.of_settings(halving, stage.short_tokens // step, step_tokens=step)
        steps = measured_steps(
            stage.short_tokens // step, step, rungs=rungs, reports=halving.reports
        )
        costs, times = [], []
        for member, shape in zip(self.outline.members, self.shapes, strict=True):
            count = self._count(member)
            tokens = trial_tokens(
                halving,
                rungs,
                stage.short_tokens,
                trials=count,
                spared=sum(anchor is not None for anchor in member.space.anchors().values()),
            )[0 if least else 1]
            share = tokens / (count * stage.short_tokens)
            cost = self._run(shape, tokens / count, len(steps) * share)
            costs += [cost] * count
            times.append(self._at_once([cost] * count, self.resources))
        return _work("trials", costs, times)

    def evaluation_seconds(self, tokens: float) -> float:
        """How long uniform shrinks read so many tokens, on all slots at once; 0 where no speed is
        known."""
        flops = max(self._costs.forward_flops(shape) for shape in self.shapes) * tokens
        return flops / self._slots * (self.speed.training or 0.0)

    def _count(self, member: Member) -> int:
        """Trials of a member; with layers that differ there are more architectures than these."""
        trials = self.outline.config.trials
        if self.outline.per_layer is not None:
            return trials
        return min(trials, len(member.space.feasible))

    def _last_runs(self) -> Work:
        """Full runs, evidence and test, round by round."""
        config = self.outline.config
        costs, times = [], []
        for last, shape in zip(self.last, self.shapes, strict=True):
            for runs in last.rounds:
                of_round = []
                for run in runs:
                    tokens = last.tokens_of(run)
                    reports = config.full_reports * (tokens // config.full_tokens) or 1
                    cost = self._run(shape, tokens, reports)
                    of_round.append(cost)
                costs += of_round
                times.append(self._at_once(of_round, self.full_resources))
        return _work("full runs and evidence", costs, times)

    def _run(self, shape: Architecture, tokens: float, evaluations: float) -> Cost:
        return self._costs.student(
            shape,
            trained=tokens,
            evaluated=evaluations * self._held_out[0],
            taught=tokens if self.live else 0,
        )

    def _at_once(self, runs: list[Cost], resources: Resources) -> float | None:
        """Seconds of these runs, as many at once as there is room for; processes of one are taken
        to share its time evenly."""
        each = self.speed.training
        if each is None:
            return None
        pace = Pace(each / resources.workers, self.speed.starting)
        return pace.seconds((cost.flops for cost in runs), resources.concurrent)

    @property
    def _slots(self) -> int:
        """Processes of trials."""
        return self.resources.concurrent * self.resources.workers

    @property
    def readers(self) -> int:
        """Processes that read the teacher at once."""
        single = replace(self.resources, concurrent=self._slots, workers=1)
        return single.concurrent if worth_spreading(single) else 1

    @staticmethod
    def _seconds(flops: float, each: float | None) -> float | None:
        return None if each is None else flops * each


def _work(what: str, costs: list[Cost], times: list[float | None]) -> Work:
    whole = Cost.sum(costs)
    known = [seconds for seconds in times if seconds is not None]
    return Work(
        what=what,
        runs=len(costs),
        tokens=whole.tokens,
        training_flops=whole.student_flops,
        forward_flops=whole.teacher_flops + whole.evaluation_flops,
        seconds=sum(known) if len(known) == len(times) else None,
    )
