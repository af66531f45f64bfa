"""Measurement of students on the test split: winners, baselines, and the teacher itself.

The test split is read here and nowhere else. Everything is measured on checkpoints that were
written and loaded again, in fp32.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common.intervals import Interval, difference_interval, mean_interval
from distill import Corpus, Evaluation, Targets, teacher_cross_entropy
from distill.recipes import Assets
from pruning import Architecture
from search.config.names import (
    EVIDENCE_FULL,
    EVIDENCE_NONE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
    UNCORRECTED,
)
from search.finals.selection import FinalSelection
from search.results.results import (
    CorrectedStudent,
    CorrectedTeacher,
    CorrectionResult,
    ScoreIntervals,
    Scores,
    StudentResult,
    TeacherScores,
)
from search.results.results_file import from_json
from search.space.anchors import UNIFORM
from search.workers.full_runs import (
    MEMBER_SEPARATOR,
    FullPlan,
    FullResult,
    FullRun,
    load_result,
    uncorrected,
)
from workspace.corrected_teacher import correction_facts
from workspace.held_out import evaluate_on_test_split

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One student with all its seeds, measured on the test split."""

    role: str
    """Candidate, or the name of the baseline that it is."""
    architecture: Architecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    runs: list[FullResult]
    """Its full runs, one per training seed."""
    test: list[Evaluation]
    """Scores of each run's checkpoint."""

    @property
    def from_scratch(self) -> bool:
        """Whether it was trained from random weights."""
        return self.runs[0].run.from_scratch

    def interval(self, metric: str) -> Interval:
        """Mean of a metric over sequences and seeds."""
        return mean_interval([getattr(evaluation, metric) for evaluation in self.test])

    @property
    def _cut_from(self) -> str:
        if self.from_scratch:
            return "nothing: random weights"
        return self.runs[0].run.source.partition(MEMBER_SEPARATOR)[0] or "teacher"

    def result(self) -> StudentResult:
        """Its entry in results.json."""
        first = self.runs[0]
        return StudentResult(
            role=self.role,
            architecture=self.architecture,
            parameters=self.parameters,
            tokens=first.tokens,
            cut_from=self._cut_from,
            selection_kl=first.selection.means()["kl"],
            curve=list(first.curve),
            checkpoint=Scores(**self.test[0].means()),
            test=ScoreIntervals(*map(self.interval, ("kl", "ce", "top1_agreement"))),
        )


@dataclass(frozen=True)
class MeasuredStudents:
    """Winners and baselines of a study, measured on the test split."""

    winners: list[Measured]
    """Best first."""
    baselines: dict[str, Measured]
    """Those that were distilled in full and came through, by name; one may be a winner too."""

    @property
    def best(self) -> Measured:
        """The winner."""
        return self.winners[0]

    @property
    def distinct(self) -> list[Measured]:
        """Each once, winners first."""
        students = [*self.winners, *self.baselines.values()]
        return list({id(student): student for student in students}.values())


@dataclass(frozen=True)
class Measurement:
    """Measurement of students on the test split."""

    plan: FullPlan
    """How they were distilled."""
    parameters_of: Callable[[Architecture], int]
    """Counts them."""

    def student(
        self, run: FullRun, *, seeds: int, checkpoint: Path | None = None
    ) -> Measured | None:
        """All seeds of a student; None where no run of it came through.

        Args:
            run: Its run of the first seed.
            seeds: How many may have run.
            checkpoint: Of the first seed, where it is not the one of the run.
        """
        runs = [replace(run, shuffle=shuffle) for shuffle in range(seeds)]
        results = [result for each in runs if (result := load_result(each, self.plan))]
        if not results:
            return None
        models = [result.model for result in results]
        if checkpoint is not None:
            models[0] = checkpoint
        test = [_test(model, self.plan.assets) for model in models]
        shape = run.architecture
        measured = Measured(run.role, shape, self.parameters_of(shape), results, test)
        LOGGER.info(f"test: {run}: kl {measured.interval('kl')}")
        return measured


def measure(
    selection: FinalSelection, ranking: list[FullRun], *, measurement: Measurement, best: Path
) -> MeasuredStudents:
    """Measure winners and baselines, each once; the winner's first seed is what `best` has.

    Baselines are those that were distilled in full, as far as they came through.
    """
    stage = selection.stage
    seeds = max(stage.seeds, stage.finalist_seeds)
    candidates = [
        measurement.student(run, seeds=seeds, checkpoint=best if run == ranking[0] else None)
        for run in ranking
    ]
    winners = [student for student in candidates if student]
    known = {(one.architecture, one.from_scratch): one for one in winners}
    shape, baselines = winners[0].architecture, {}
    for name, run in _baselines(selection, shape, plan=measurement.plan).items():
        student = known.get((run.architecture, run.from_scratch))
        student = student or measurement.student(run, seeds=seeds)
        if student is not None:
            baselines[name] = student
        elif stage.evidence == EVIDENCE_FULL:
            LOGGER.info(f"test: {run} has no finished run")
    return MeasuredStudents(winners, baselines)


def _baselines(
    selection: FinalSelection, winner: Architecture, *, plan: FullPlan
) -> dict[str, FullRun]:
    """The full runs that a winner of this architecture is held against, by name."""
    if selection.stage.evidence == EVIDENCE_NONE:
        return {}
    scratch = selection.scratch(winner)
    if scratch.tokens is not None and scratch.tokens < plan.tokens:
        scratch = replace(scratch, tokens=None)  # one of an earlier start, if there is one
    shapes = {UNIFORM: selection.uniform, RANDOM_ARCHITECTURE: selection.random}
    runs = {name: selection.run(name, shape) for name, shape in shapes.items() if shape is not None}
    return {**runs, RANDOM_INITIALISATION: scratch}


def _test(model: Path, assets: Assets) -> Evaluation:
    corpus = Corpus(assets.corpus)
    return evaluate_on_test_split(model, corpus, targets=assets.test_targets, device=assets.device)


def correction_result(winner: Measured, plan: FullPlan) -> CorrectionResult | None:
    """Gain of teacher and winner by correcting the teacher; None where it was not corrected.

    The student's gain is in cross-entropy to the test text, since the two teachers differ; it is
    paired over sequences, of one training seed.
    """
    facts = correction_facts(plan.assets.teacher)
    if facts is None:
        return None
    teacher = from_json(CorrectedTeacher, facts)
    other = load_result(FullRun(UNCORRECTED, winner.architecture), uncorrected(plan))
    if other is None:
        return CorrectionResult(teacher, None)
    without = _test(other.model, plan.assets)
    own, ce = winner.test[0], without.means()["ce"]
    LOGGER.info(f"test: {UNCORRECTED} {winner.architecture}: cross-entropy {ce:.4f}")
    difference = difference_interval([own.ce], [without.ce])
    return CorrectionResult(teacher, CorrectedStudent(own.means()["ce"], ce, difference))


def teacher_scores(assets: Assets) -> TeacherScores:
    """The teacher's own cross-entropy on the test split."""
    corpus = Corpus(assets.corpus)
    sequences = len(corpus.blocks("test"))
    weights = corpus.weights("test")
    ce = teacher_cross_entropy(Targets(assets.test_targets), sequences, weights)
    return TeacherScores(mean_interval([ce]))
