"""Costs of a finished search: of every stage, of each winner, and against training from scratch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from distill import Corpus
from pruning import Architecture
from pruning.families import TRAINING_PASSES
from search.config.names import RANDOM_INITIALISATION, UNCORRECTED
from search.database.attributes import TRIAL_PHASES
from search.database.trial_facts import architecture_of, origin_of, progress_of
from search.finals.measure import Measured
from search.report.finished_search import FinishedSearch
from search.report.preparation_cost import blocks_cost, preparation_cost, untrained_tokens
from search.results.ledger import (
    BLOCKS,
    COMPARED,
    FULL,
    PREPARATION,
    TEST,
    TRIALS,
    ZERO_SHOT,
    Cost,
    Ledger,
    LedgerEntry,
    RunCosts,
    winner_ledger,
)
from search.results.scratch_comparison import ScratchComparison, against_scratch
from search.study.record import Record
from search.workers.full_runs import FullResult, FullRun, load_result, uncorrected


@dataclass(frozen=True)
class CostReport:
    """Costs of a finished search for one student."""

    ledger: Ledger
    """Of the whole search; of a member of a family, with its share of the preparation."""
    winners: list[Ledger]
    """Of each winner: its own runs and its share of the search."""
    scratch: ScratchComparison | None
    """The winner against its own shape from random weights; None where that did not run in full."""
    training_share: float | None
    """Share of the slots' time during the trials that went into training and evaluation; None where
    it is not known."""

    @classmethod
    def of(cls, search: FinishedSearch) -> "CostReport":
        """Count everything that was run."""
        runs = _Runs(search)
        winners, ledger = search.students.winners, runs.ledger()
        count = len(winners)
        return cls(
            ledger=ledger,
            winners=[winner_ledger(ledger, runs.of_student(w), winners=count) for w in winners],
            scratch=runs.scratch(ledger),
            training_share=_training_share(search.record),
        )


class _Runs:
    """The runs of a search, each with its cost."""

    def __init__(self, search: FinishedSearch):
        assets, inputs = search.plan.assets, search.inputs
        self.search, self.plan = search, search.plan
        self.tokens = Corpus(assets.corpus).facts
        self.live = assets.live
        self.costs = RunCosts.of(inputs.teacher.config, inputs.block)

    def ledger(self) -> Ledger:
        """All entries, in the order in which they were run."""
        search = self.search
        entries = [
            LedgerEntry(PREPARATION, preparation_cost(search, self.costs)),
            *self._blocks(),
            *self._zero_shot(),
            *self._trials(),
            *self._short_baselines(),
            *self._apart(),
        ]
        own = (self.of_student(student).entries for student in search.students.distinct)
        return Ledger((*entries, *(entry for entries in own for entry in entries)))

    def of_student(self, student: Measured) -> Ledger:
        """Full runs and test of one student."""
        tested = self.tokens["test_tokens"]
        test = self.costs.student(student.architecture, evaluated=tested)
        entries: list[LedgerEntry] = []
        for run in student.runs:
            entries += [*self._of_result(FULL, run), LedgerEntry(TEST, test)]
        return Ledger(tuple(entries))

    def scratch(self, ledger: Ledger) -> ScratchComparison | None:
        """The winner's first seed against its own shape from random weights, distilled likewise."""
        students = self.search.students
        other = students.baselines.get(RANDOM_INITIALISATION)
        if other is None:
            return None
        winner, first = students.best, students.best.runs[0]
        own = Ledger(tuple(self._of_result(FULL, first)))
        forward = self.costs.forward_flops
        per_token = TRAINING_PASSES * forward(winner.architecture)
        if self.live:
            per_token += forward(self.costs.teacher)
        return against_scratch(
            [(float(point.tokens), point.kl) for point in other.runs[0].curve],
            first.selection.means()["kl"],
            tokens=first.tokens,
            flops=winner_ledger(ledger, own, winners=len(students.winners)).total.flops,
            flops_per_training_token=per_token,
        )

    def _blocks(self) -> Iterator[LedgerEntry]:
        cost = blocks_cost(self.search, self.costs)
        if cost is not None:
            yield LedgerEntry(BLOCKS, cost)

    def _zero_shot(self) -> Iterator[LedgerEntry]:
        tokens = untrained_tokens(self.search)
        for shape in {shape for found in self.search.rounds for shape in found.zero_shot}:
            yield LedgerEntry(ZERO_SHOT, self.costs.student(shape, evaluated=tokens))
        scored = self.search.zero_shot
        if scored is None:
            return
        seconds = scored.seconds / len(scored.scores)
        for shape in scored.scores:
            cost = self.costs.student(shape, evaluated=scored.tokens, seconds=seconds)
            yield LedgerEntry(ZERO_SHOT, cost)

    def _trials(self) -> Iterator[LedgerEntry]:
        """Each once, however often it was taken up again; failed ones cost too."""
        trials = sorted(self.search.record.trials(), key=lambda trial: trial.number)
        for trial in {origin_of(trial): trial for trial in trials}.values():
            done = progress_of(trial)
            if done is not None:
                cost = self._trained(
                    architecture_of(trial),
                    done.tokens,
                    evaluations=len(done.curve),
                    seconds=done.seconds,
                )
                yield LedgerEntry(TRIALS, cost)

    def _short_baselines(self) -> Iterator[LedgerEntry]:
        """Short runs of baselines that are no trials."""
        ranking = [winner.runs[0].run for winner in self.search.students.winners]
        for run in self.search.selection.short_runs(ranking):
            yield from self._of_result(COMPARED, load_result(run, self.plan))

    def _apart(self) -> Iterator[LedgerEntry]:
        """Full runs of no student in the results: the winner cut from the other source, or taught
        by the teacher as it was."""
        winner = self.search.students.best
        kept = winner.runs[0].run
        sources = () if winner.from_scratch else ("", *self.plan.sources)
        for run in (replace(kept, source=source) for source in sources):
            if run != kept:
                yield from self._of_result(FULL, load_result(run, self.plan))
        plain = FullRun(UNCORRECTED, winner.architecture)
        yield from self._of_result(FULL, load_result(plain, uncorrected(self.plan)))

    def _of_result(self, stage: str, result: FullResult | None) -> Iterator[LedgerEntry]:
        """The entry of a full or short run that is finished; none of one that was a trial, whose
        cost is among the trials."""
        if result is not None and not result.from_trial:
            cost = self._trained(
                result.run.architecture,
                result.tokens,
                evaluations=len(result.curve),
                seconds=result.seconds,
            )
            yield LedgerEntry(stage, cost)

    def _trained(
        self, shape: Architecture, tokens: int, *, evaluations: int, seconds: float
    ) -> Cost:
        return self.costs.student(
            shape,
            trained=tokens,
            evaluated=evaluations * self.tokens["selection_tokens"],
            taught=tokens if self.live else 0,
            seconds=seconds,
        )


def _training_share(record: Record) -> float | None:
    phases = record.study.user_attrs.get(TRIAL_PHASES, [])
    capacity = sum(phase["seconds"] * phase["slots"] for phase in phases)
    return sum(phase["busy_seconds"] for phase in phases) / capacity if capacity else None
