"""What the report says of a study beside its winners: what it cost, how well its scores predict,
what trade-offs it found."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.trial import TrialState

from distill import Corpus
from distill.losses import CROSS_ENTROPY
from pruning import Architecture
from pruning.costs import forward_flops
from pruning.layer_scores import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from search.attributes import PREPARATION_SECONDS
from search.attributes import ZERO_SHOT as ZERO_SHOT_KL
from search.fidelity import CandidateScores
from search.finals import FullPlan, FullRun, load_result, uncorrected
from search.inputs import Inputs
from search.ledger import (
    COMPARED,
    FULL,
    PREPARATION,
    TEST,
    TRAINING_PASSES,
    TRIALS,
    ZERO_SHOT,
    Entry,
    Ledger,
    ScratchComparison,
    against_scratch,
    student_entry,
    teacher_entry,
    winner_ledger,
)
from search.members import Member
from search.pareto import front, hypervolume_curve, knee, reference_point
from search.record import Record
from search.results import Measured
from search.selection import CANDIDATE, RANDOM_INITIALISATION, UNCORRECTED, Contest
from search.trial_facts import (
    FINISHED,
    architecture_of,
    latest_by_origin,
    origin_of,
    progress_of,
)
from search.zero_shot import ZeroShot
from workspace.corrected_teacher import correction_facts
from workspace.sorting import ENERGY_SEQUENCES


@dataclass(frozen=True)
class StageFacts:
    """All that was done for one student that is looked for."""

    member: Member
    record: Record
    contest: Contest
    plan: FullPlan
    zero_shot: ZeroShot | None


@dataclass(frozen=True)
class Accounts:
    """Costs of a study."""

    facts: StageFacts
    inputs: Inputs
    winners: list[Measured]
    baselines: dict[str, Measured]

    @property
    def _corpus(self) -> Corpus:
        return Corpus(self.facts.plan.assets.corpus)

    @property
    def _teacher(self) -> Architecture:
        return self.inputs.space.teacher

    def _forward(self, architecture: Architecture) -> float:
        config = self.inputs.teacher.config
        return float(forward_flops(config, architecture, self.inputs.block))

    def _taught(self, tokens: int) -> int:
        """Tokens that the teacher read beside a student that trained on so many."""
        assets = self.facts.plan.assets
        live = assets.training_targets is None and assets.training.loss != CROSS_ENTROPY
        return tokens if live else 0

    def ledger(self) -> Ledger:
        """Of the whole study; of a family, of one member with its share of the preparation."""
        measured = [*self.winners, *self.baselines.values()]
        distinct = {id(student): student for student in measured}  # a baseline may be a winner
        total = Ledger((self._preparation(), *self._zero_shot(), *self._trials()))
        total = total + Ledger((*self._compared(), *self._apart()))
        for student in distinct.values():
            total = total + self._own(student)
        return total

    def of_winner(self, winner: Measured, ledger: Ledger) -> Ledger:
        """What a winner cost: its own runs and its share of the search."""
        return winner_ledger(ledger, self._own(winner), len(self.winners))

    def _preparation(self) -> Entry:
        corpus, config = self._corpus, self.inputs.config
        facts = corpus.facts
        plan = self.facts.plan
        read = facts["selection_tokens"] + facts["test_tokens"]
        if plan.assets.training_targets is not None:
            longest = max(plan.tokens, self.facts.contest.stage.scratch_tokens or 0)
            read += min(longest, facts["train_tokens"])
        sequences = min(config.calibration, facts["train_tokens"] // corpus.block)
        read += (sequences + min(sequences, ENERGY_SEQUENCES)) * corpus.block
        if config.importance.layers in LEFT_OUT_SCORES:
            read += min(sequences, LEFT_OUT_SEQUENCES) * self._teacher.layers * corpus.block
        corrected = (correction_facts(plan.assets.teacher) or {"tokens": 0})["tokens"]
        members = len(self.inputs.members)
        whole = teacher_entry(
            PREPARATION,
            self._teacher,
            self._forward,
            read_tokens=read,
            trained_tokens=corrected,
            seconds=self.facts.record.study.user_attrs.get(PREPARATION_SECONDS, 0.0),
        )
        return Ledger((whole,)).shared(members).entries[0]

    def _zero_shot(self) -> list[Entry]:
        found = self.facts.zero_shot
        if found is None:
            return []
        return [
            student_entry(
                ZERO_SHOT,
                shape,
                self._forward,
                evaluated_tokens=found.tokens,
                seconds=found.seconds / len(found.scores),
            )
            for shape in found.scores
        ]

    def _trials(self) -> list[Entry]:
        entries = []
        trials = sorted(self.facts.record.trials(), key=lambda t: t.number)
        for trial in {origin_of(t): t for t in trials}.values():  # failed ones cost too
            done = progress_of(trial)
            if done:
                shape = architecture_of(trial)
                figures = done["tokens"], len(done["curve"]), done["seconds"]
                entries.append(self._trained(TRIALS, shape, *figures))
        return entries

    def _trained(
        self, stage: str, shape: Architecture, tokens: int, evaluations: int, seconds: float
    ) -> Entry:
        return student_entry(
            stage,
            shape,
            self._forward,
            trained_tokens=tokens,
            evaluated_tokens=evaluations * self._corpus.facts["selection_tokens"],
            taught_tokens=self._taught(tokens),
            teacher=self._teacher,
            seconds=seconds,
        )

    def _apart(self) -> list[Entry]:
        """Full runs that are no student's of the results: the winner cut the other way, or taught
        by the teacher as it was."""
        facts, winner = self.facts, self.winners[0]
        kept = winner.runs[0].run
        sources = () if winner.from_scratch else ("", *facts.plan.sources)
        runs = [replace(kept, source=source) for source in sources]
        found = [load_result(run, facts.plan) for run in runs if run != kept]
        plain = FullRun(UNCORRECTED, winner.architecture)
        found.append(load_result(plain, uncorrected(facts.plan)))
        return [
            self._trained(FULL, winner.architecture, run.tokens, len(run.curve), run.seconds)
            for run in found
            if run is not None and not run.from_trial
        ]

    def _compared(self) -> list[Entry]:
        """Short runs of baselines that are no trials."""
        contest, plan = self.facts.contest, self.facts.plan
        runs = contest.short_runs([winner.runs[0].run for winner in self.winners])
        found = [load_result(run, plan) for run in runs]
        return [
            self._trained(COMPARED, r.run.architecture, r.tokens, len(r.curve), r.seconds)
            for r in found
            if r is not None
        ]

    def _own(self, student: Measured) -> Ledger:
        """Full runs and test of one student."""
        tested = self._corpus.facts["test_tokens"]
        entries = []
        for run in student.runs:
            shape = student.architecture
            if not run.from_trial:  # else it is among the trials
                entries.append(self._trained(FULL, shape, run.tokens, len(run.curve), run.seconds))
            entries.append(student_entry(TEST, shape, self._forward, evaluated_tokens=tested))
        return Ledger(tuple(entries))

    def scratch(self, ledger: Ledger) -> ScratchComparison | None:
        """The winner against its own shape from random weights, distilled likewise."""
        other = self.baselines.get(RANDOM_INITIALISATION)
        if other is None:
            return None
        winner = self.winners[0]
        taken_over = winner.runs[0].from_trial
        trained = (
            () if taken_over else (self._trained(FULL, winner.architecture, *_figures(winner)),)
        )
        first = Ledger(trained)
        cost = winner_ledger(ledger, first, len(self.winners))
        curve = [(float(p.tokens), float(p.kl)) for p in other.runs[0].curve]
        return against_scratch(
            winner.runs[0].selection.means()["kl"],
            winner.runs[0].tokens,
            cost.total("flops"),
            curve,
            TRAINING_PASSES * self._forward(winner.architecture)
            + self._taught(1) * self._forward(self._teacher),
        )


def _figures(student: Measured) -> tuple[int, int, float]:
    run = student.runs[0]
    return run.tokens, len(run.curve), run.seconds


def candidate_scores(facts: StageFacts) -> list[CandidateScores]:
    """Every scored candidate with what is known of it, for the rank fidelity."""
    found = []
    for trial in latest_by_origin(facts.record.trials(*FINISHED)).values():
        shape, done = architecture_of(trial), progress_of(trial)
        if not done:
            continue
        full = load_result(facts.contest.run(CANDIDATE, shape), facts.plan)
        full = full or load_result(FullRun(CANDIDATE, shape), facts.plan)
        complete = trial.state == TrialState.COMPLETE
        found.append(
            CandidateScores(
                parameters=facts.record.space.parameters_of[shape],
                curve=[(p["tokens"], p["kl"]) for p in done["curve"]],
                zero_shot=trial.user_attrs.get(ZERO_SHOT_KL),
                short=done["kl"] if complete else None,
                full=None if full is None else full.selection.means()["kl"],
            )
        )
    return found


def front_facts(record: Record) -> dict[str, Any] | None:
    """Pareto front, knee and hypervolume over time; None with one objective or without a trial."""
    scored = record.trials(TrialState.COMPLETE)
    if not record.objectives.several or not scored:
        return None
    scored = sorted(scored, key=lambda t: (t.datetime_complete, t.number))
    values = np.array([record.objectives.minimised(t.values) for t in scored])
    reference = reference_point(values)

    def point(index: int) -> dict[str, Any]:
        named = zip(record.objectives.names, scored[index].values, strict=True)
        shape = scored[index].user_attrs["architecture"]
        return {"trial": scored[index].number, "architecture": shape, "values": dict(named)}

    return {
        "objectives": list(record.objectives.names),
        "front": sorted(map(point, front(values)), key=lambda p: p["values"]["kl"]),
        "knee": point(knee(values)),
        "hypervolume": hypervolume_curve(values, reference).tolist(),
        "reference": reference.tolist(),
    }
