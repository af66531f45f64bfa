"""The ledger of a study: tokens, FLOPs and device-seconds of every run, by stage.

FLOPs of the student, of the teacher and of evaluation are kept apart, since published savings often
count the first alone. A training step costs three forward passes (arXiv 2001.08361); FLOPs of a
forward pass come from the caller, who knows the model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from transformers import PretrainedConfig

from common.errors import require
from pruning import Architecture, architecture_of
from pruning.families import TRAINING_PASSES, forward_flops

PREPARATION = "preparation"
"""Importance, teacher targets, teacher correction."""
BLOCKS = "blocks"
"""Training and scores of the blocks of students whose layers differ."""
ZERO_SHOT = "zero-shot"
TRIALS = "trials"
COMPARED = "short baselines"
"""Short runs of baselines, for example of the random architecture."""
FULL = "full distillation"
TEST = "test"
STAGES = (PREPARATION, BLOCKS, ZERO_SHOT, TRIALS, COMPARED, FULL, TEST)
TOTAL = "total"
"""Name of the sum over all stages, beside the names of stages."""
HEADER = ["stage", "tokens", "student", "teacher", "evaluation", "FLOPs in all", "device-seconds"]

ForwardFlops = Callable[[Architecture], float]
"""FLOPs of a forward pass, per token."""


@dataclass(frozen=True)
class Cost:
    """Cost of a run, or of several together."""

    tokens: float = 0.0
    """Trained on; where nothing is trained, read."""
    student_flops: float = 0.0
    """Training of students."""
    teacher_flops: float = 0.0
    """The teacher's forward passes, and its training where it is corrected."""
    evaluation_flops: float = 0.0
    """The students' forward passes that score them."""
    seconds: float = 0.0
    """Seconds times the devices held."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require(0 <= value < float("inf"), f"{name} is {value}; give a number from 0 up")

    @property
    def flops(self) -> float:
        """Of student, teacher and evaluation together."""
        return self.student_flops + self.teacher_flops + self.evaluation_flops

    @classmethod
    def sum(cls, costs: Iterable["Cost"]) -> "Cost":
        """All of them together."""
        costs = list(costs)
        return cls(*(float(sum(getattr(c, f.name) for c in costs)) for f in fields(cls)))

    def __truediv__(self, count: int) -> "Cost":
        return Cost(*(amount / count for amount in asdict(self).values()))

    def __str__(self) -> str:
        return (
            f"{self.tokens:,.0f} tokens, {self.flops:.3g} FLOPs (students "
            f"{self.student_flops:.3g}, teacher {self.teacher_flops:.3g}, evaluation "
            f"{self.evaluation_flops:.3g}), {self.seconds:,.0f} device-seconds"
        )

    def to_dict(self) -> dict[str, float]:
        """The amounts, and all FLOPs together."""
        return asdict(self) | {"flops": self.flops}


@dataclass(frozen=True)
class LedgerEntry:
    """Cost of one run, or of one piece of preparation."""

    stage: str
    """One of STAGES."""
    cost: Cost
    """Of the run."""

    def __post_init__(self) -> None:
        require(
            self.stage in STAGES,
            f"{self.stage!r} is not a stage of a study; the stages are {', '.join(STAGES)}",
        )


@dataclass(frozen=True)
class Ledger:
    """The entries of a study, or of one winner's part in it."""

    entries: tuple[LedgerEntry, ...] = ()
    """In the order in which they were run."""

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(self.entries + other.entries)

    def by_stage(self) -> dict[str, Cost]:
        """Cost of each stage that has any entry, in the order of STAGES."""
        return {
            stage: Cost.sum(costs)
            for stage in STAGES
            if (costs := [entry.cost for entry in self.entries if entry.stage == stage])
        }

    def only(self, *stages: str) -> "Ledger":
        """The entries of these stages."""
        return Ledger(tuple(entry for entry in self.entries if entry.stage in stages))

    def shared(self, count: int) -> "Ledger":
        """The share of each of `count` winners."""
        require(count > 0, f"a cost cannot be shared by {count} winners; give at least 1")
        return Ledger(tuple(LedgerEntry(e.stage, e.cost / count) for e in self.entries))

    @property
    def total(self) -> Cost:
        """All entries together."""
        return Cost.sum(entry.cost for entry in self.entries)

    def costs(self) -> dict[str, Cost]:
        """Cost by stage, and of all together as TOTAL."""
        return self.by_stage() | {TOTAL: self.total}


@dataclass(frozen=True)
class RunCosts:
    """Costs of single runs of a study, from the tokens that they read."""

    forward_flops: ForwardFlops
    """Counts them for any student, and for the teacher."""
    teacher: Architecture
    """Sizes of the model that teaches."""

    @classmethod
    def of(cls, teacher: PretrainedConfig, block: int) -> "RunCosts":
        """Of students of a teacher, on sequences of so many tokens."""

        def flops(architecture: Architecture) -> float:
            return float(forward_flops(teacher, architecture, block))

        return cls(flops, architecture_of(teacher))

    def student(
        self,
        architecture: Architecture,
        *,
        trained: float = 0.0,
        evaluated: float = 0.0,
        taught: float = 0.0,
        seconds: float = 0.0,
    ) -> Cost:
        """Cost of one student's run.

        Args:
            architecture: The student's.
            trained: Tokens that it was trained on.
            evaluated: Tokens of all its evaluations together.
            taught: Tokens that the teacher read beside it; 0 where its targets were stored, whose
                cost is in the preparation.
            seconds: Seconds times the devices held.
        """
        per_token = self.forward_flops(architecture)
        return Cost(
            tokens=trained or evaluated,
            student_flops=TRAINING_PASSES * per_token * trained,
            teacher_flops=self.forward_flops(self.teacher) * taught,
            evaluation_flops=per_token * evaluated,
            seconds=seconds,
        )

    def of_teacher(self, *, read: float = 0.0, trained: float = 0.0, seconds: float = 0.0) -> Cost:
        """Cost of the teacher alone: importance and targets read, correction trains it."""
        return Cost(
            tokens=read + trained,
            teacher_flops=self.forward_flops(self.teacher) * (read + TRAINING_PASSES * trained),
            seconds=seconds,
        )


def table_rows(costs: Mapping[str, Cost]) -> list[list[str]]:
    """Cells of a table under HEADER, of the costs by stage; the last row is the total."""
    return [
        [
            name,
            f"{cost.tokens:,.0f}",
            f"{cost.student_flops:.3g}",
            f"{cost.teacher_flops:.3g}",
            f"{cost.evaluation_flops:.3g}",
            f"{cost.flops:.3g}",
            f"{cost.seconds:,.0f}",
        ]
        for name, cost in costs.items()
    ]


def winner_ledger(study: Ledger, own: Ledger, *, winners: int) -> Ledger:
    """Cost of one of `winners`: its own full distillation and test, and its share of the search.

    The search (preparation, blocks, zero-shot and trials of `study`) is shared evenly.
    """
    return study.only(PREPARATION, BLOCKS, ZERO_SHOT, TRIALS).shared(winners) + own
