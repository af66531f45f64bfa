"""Results of a finished study as typed values; the fields are the keys of results.json."""

from dataclasses import dataclass, field, fields
from typing import Any

from common.intervals import Interval
from distill.recipes import CurvePoint
from pruning import Verdict
from search.config.names import EVIDENCE_FULL
from search.needs.comparison import Estimates
from search.results.facts import Completion, MeasuredText, ObjectiveResult, RunFacts
from search.results.ledger import Cost
from search.results.per_layer import PerLayerResult
from search.results.scratch_comparison import ScratchComparison
from search.results.statements import Statement
from search.results.stored import StoredArchitecture
from search.statistics.rank_correlation import RankCorrelation

SCHEMA_VERSION = 1
"""Of results.json; files of before it was recorded are read as its first."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of a study that a finished one must agree with."""

    fingerprint: dict[str, Any]
    """The parts of the study's fingerprint, by name."""
    study: str
    """Its name in the database."""
    finished_trials: int
    """How many were finished, stopped early ones included."""
    winners: int
    """Candidates distilled in full."""
    evidence: str
    """One of EVIDENCE: how the baselines were run."""
    seeds: int | None
    """Training seeds of what is compared; None where a version of before did not record it."""
    full_tokens: int
    """Training tokens of a full run."""
    scratch_tokens: int | None
    """Training tokens of the run from random weights, where the user set them."""
    ties: int
    """Most candidates beyond the winners that are distilled because they tie with the last."""
    finalist_seeds: int
    """Training seeds of every finalist."""
    tasks: str
    """Folders and names of lm-eval tasks, or "None"."""
    task_questions: int
    """Questions of each task."""


@dataclass(frozen=True)
class Scores:
    """Means over the test split; KL and cross-entropy in nats per token."""

    kl: float
    """To the teacher."""
    ce: float
    """Cross-entropy."""
    top1_agreement: float
    """Share of tokens whose likeliest continuation is the teacher's."""


@dataclass(frozen=True)
class ScoreIntervals:
    """The same with intervals over sequences and training seeds."""

    kl: Interval
    """To the teacher."""
    ce: Interval
    """Cross-entropy."""
    top1_agreement: Interval
    """Share of tokens whose likeliest continuation is the teacher's."""
    perplexity: Interval | None = None
    """Per token; None in results of before it was written."""
    bits_per_byte: Interval | None = None
    """Of the text in UTF-8, so that other tokenizers compare; None as above."""


@dataclass(frozen=True)
class TeacherScores:
    """The teacher's own scores on the test split."""

    ce: Interval
    """Cross-entropy."""
    perplexity: Interval | None = None
    """Per token; None in results of before it was written."""
    bits_per_byte: Interval | None = None
    """Of the text in UTF-8; None as above."""


@dataclass(frozen=True)
class TeacherResult:
    """The model that the students were cut from."""

    name: str
    """Hub id, or the folder's own name."""
    architecture: StoredArchitecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    test: TeacherScores
    """On the test split."""


@dataclass(frozen=True)
class StudentResult:
    """A winner or a baseline, distilled in full."""

    role: str
    """Candidate, or the name of the baseline that it is."""
    architecture: StoredArchitecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    tokens: int
    """Trained on."""
    cut_from: str
    """The teacher, a member of the family, or nothing."""
    selection_kl: float
    """Of its first seed, by which the winner is chosen."""
    curve: list[CurvePoint]
    """Evaluations of its first seed on the selection split, in the order of the tokens."""
    checkpoint: Scores
    """Of the checkpoint that is written, its first seed."""
    test: ScoreIntervals
    """Over all seeds."""
    zero_shot_kl: float | None = None
    """Selection KL before training; None where it was not measured, or is not finite."""
    folder: str | None = None
    """Of its checkpoint, in the workspace; None where none is written."""


@dataclass(frozen=True)
class ShortRuns:
    """Selection KL after the short run, of one training seed."""

    tokens: int
    """Of a short run."""
    selection_kl: dict[str, Interval]
    """Of the winner's architecture, and of the baselines that were not distilled in full."""
    differences: dict[str, Interval]
    """Winner minus the other, paired over sequences."""


@dataclass(frozen=True)
class Searched:
    """Part of the space that was tried."""

    architectures: int
    """Inside the budget."""
    allowed: int
    """Of these, those that the scores before training left in."""
    tried: int
    """Trials that came to their end or were stopped early."""
    stopped: int
    """Of these, those that were stopped early."""
    asked: int
    """Trials that the user asked for."""
    exhausted: bool
    """Whether nothing was left to try."""
    per_layer: int = 0
    """Of those that were tried, those whose layers differ, which are beside the architectures."""

    def to_dict(self) -> dict[str, Any]:
        """The fields; of layers that differ only where there are any."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return known if self.per_layer else {n: known[n] for n in known if n != "per_layer"}


@dataclass(frozen=True)
class CorrectedTeacher:
    """Gain of the teacher by its correction: cross-entropy on the selection split."""

    tokens: int
    """Trained on."""
    before: Interval
    """Of the teacher as the user gave it."""
    after: Interval
    """Of the one that teaches."""
    difference: Interval
    """After minus before, paired over sequences."""


@dataclass(frozen=True)
class CorrectedStudent:
    """Gain of the winner by teacher correction: cross-entropy on the test split, one seed."""

    ce: float
    """Of the winner."""
    ce_uncorrected: float
    """Of the same shape, cut from and taught by the teacher as the user gave it."""
    difference: Interval
    """The first minus the second, paired over sequences."""


@dataclass(frozen=True)
class CorrectionResult:
    """Gain by correcting the teacher."""

    teacher: CorrectedTeacher
    """On the selection split."""
    student: CorrectedStudent | None
    """None where the run from the uncorrected teacher did not come through."""


@dataclass(frozen=True)
class FrontPoint:
    """A trial on the Pareto front."""

    trial: int
    """Its number in the study."""
    architecture: StoredArchitecture
    """Its sizes."""
    values: dict[str, float]
    """By name of the objective."""


@dataclass(frozen=True)
class Front:
    """Trade-offs of several objectives."""

    objectives: list[str]
    """Their names, KL first."""
    front: list[FrontPoint]
    """By KL, lowest first."""
    knee: FrontPoint
    """Farthest below the plane through the ends of the front."""
    hypervolume: list[float]
    """After each finished trial."""
    reference: list[float]
    """Point that the hypervolume is measured from, all objectives minimised."""


@dataclass(frozen=True)
class LatencyResult:
    """A time that the model takes, in milliseconds."""

    predicted: float
    """By the table of measured times."""
    measured: float | None
    """Again, of the winner; None where the user brought the table."""


@dataclass(frozen=True)
class ServingCosts:
    """Costs to hold and to run a winner."""

    parameters: float
    """All of them."""
    non_embedding: float
    """Parameters without those of embeddings."""
    active: float
    """Parameters that a token passes through."""
    memory: float
    """Bytes of weights and key-value cache."""
    flops: float
    """FLOP of a forward pass, per token."""
    latency: dict[str, LatencyResult] = field(default_factory=dict)
    """By name of the time; empty where no latency was asked for."""

    @property
    def counted(self) -> dict[str, float]:
        """By name, without latencies."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "latency"}

    def amount(self, cost: str) -> float | None:
        """Of one cost, a time as it was predicted; None where that was not asked for."""
        if cost in self.latency:
            return self.latency[cost].predicted
        return self.counted.get(cost)

    def to_dict(self) -> dict[str, Any]:
        """By name, latencies only where there are any."""
        return self.counted | ({"latency": self.latency} if self.latency else {})


@dataclass(frozen=True)
class TaskResults:
    """Metrics of lm-eval, by task and metric; empty without tasks."""

    winner: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the checkpoint that is written."""
    teacher: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the teacher as the user gave it."""

    def to_dict(self) -> dict[str, Any]:
        """By model; empty without tasks."""
        return {"winner": self.winner, "teacher": self.teacher} if self.winner else {}


@dataclass(frozen=True)
class TrainingResult:
    """Settings of the runs that a reader of the results needs."""

    batch: int
    """Sequences of a step."""
    block: int
    """Tokens of a sequence."""
    precision: str
    """Type that students compute in."""
    loss: str
    """Name of the distillation loss."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of a finished search for one student: the content of results.json."""

    schema_version: int = SCHEMA_VERSION
    """Of this file's format."""
    asked: Asked
    """The study that the user asked for."""
    exhausted: bool
    """Whether no architecture was left to try."""
    member: str | None
    """Name in the family; None without one."""
    teacher: TeacherResult
    """The model that the students were cut from."""
    budget: str
    """The band of the budget, in words."""
    winners: list[StudentResult]
    """Best first."""
    baselines: dict[str, StudentResult]
    """Those that were distilled in full, by name."""
    evidence: str = EVIDENCE_FULL
    """One of EVIDENCE: how the baselines were run."""
    differences: dict[str, Interval]
    """Test KL of the winner minus that of each baseline and the runner-up, paired."""
    short: ShortRuns | None = None
    """Comparison by short runs; None in results of before --evidence."""
    searched: Searched | None = None
    """Part of the space that was tried; None in results of before it was recorded."""
    sorted_teacher: str
    """Its directory in the workspace."""
    correction: CorrectionResult | None
    """None where the teacher was not corrected."""
    ledger: dict[str, Cost]
    """Cost of the study by stage, and `total`."""
    winner_ledgers: list[dict[str, Cost]]
    """The same of each winner: its own runs and its share of the search."""
    training_share: float | None
    """Share of the slots' time during the trials that went into training and evaluation."""
    scratch: ScratchComparison | None
    """The winner against its own shape from random weights; None without that run."""
    chances: dict[str, float]
    """How likely each architecture is the best by its short run, the likeliest first."""
    fidelity: list[RankCorrelation]
    """Rank correlation of every cheap score with every later one."""
    fidelity_rows: list[list[str]]
    """The same as cells of a table."""
    fidelity_warnings: list[str]
    """A sentence for each score that is not shown to predict."""
    front: Front | None
    """None with one objective."""
    costs: list[ServingCosts]
    """Of each winner."""
    other_costs: dict[str, ServingCosts] = field(default_factory=dict)
    """Of the teacher and of each baseline, by name; times as predicted."""
    engines: list[Verdict] = field(default_factory=list)
    """Which engines take the winner; empty in results of before they were asked."""
    tasks: TaskResults
    """lm-eval metrics of winner and teacher."""
    training: TrainingResult
    """Settings of the runs."""
    verdicts: list[Statement]
    """What is said of the winner, the headline first, as far as the intervals allow it."""
    per_layer: PerLayerResult | None = None
    """None where all layers of a student are alike."""
    estimates: Estimates | None = None
    """Memory and time as they were planned and measured; None in results of before."""
    objectives: list[ObjectiveResult] = field(default_factory=list)
    """What was looked for, the KL first; empty in results of before it was written."""
    test_text: MeasuredText | None = None
    """Text that the test scores are of; None in results of before."""
    completions: list[Completion] = field(default_factory=list)
    """Samples of what teacher, winner and uniform shrink write."""
    run: RunFacts | None = None
    """How the study was run; None in results of before."""

    def to_dict(self) -> dict[str, Any]:
        """The fields; of layers that differ only where they may."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.per_layer is None:
            del known["per_layer"]
        return known


def named_students(results: Results) -> list[tuple[str, StudentResult]]:
    """Winners, best first, and baselines, each with a name for tables and plots."""
    winners = [
        ("winner" if rank == 0 else f"candidate {rank + 1}", winner)
        for rank, winner in enumerate(results.winners)
    ]
    return [*winners, *results.baselines.items()]
