"""What a study and its winners cost, and what training from scratch would have cost instead.

FLOPs of the student, of the teacher and of evaluation are kept apart, since published savings often
count the first alone. A training step costs three forward passes (arXiv 2001.08361); FLOPs of a
forward pass come from the caller, who knows the model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import floor
from typing import Any

from pruning import Architecture
from pruning.costs import TRAINING_PASSES
from search.errors import require

PREPARATION = "preparation"
"""Importance, teacher targets, teacher correction."""
ZERO_SHOT = "zero-shot"
TRIALS = "trials"
COMPARED = "short baselines"
"""Short runs that are there to be compared, such as of the random architecture."""
FULL = "full distillation"
TEST = "test"
STAGES = (PREPARATION, ZERO_SHOT, TRIALS, COMPARED, FULL, TEST)
HEADER = ["stage", "tokens", "student", "teacher", "evaluation", "FLOPs in all", "device-seconds"]

ForwardFlops = Callable[[Architecture], float]
"""FLOPs of a forward pass, per token."""


@dataclass(frozen=True)
class Entry:
    """What one run, or one piece of preparation, cost."""

    stage: str
    """One of STAGES."""
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
        require(
            self.stage in STAGES,
            f"{self.stage!r} is not a stage of a study; the stages are {', '.join(STAGES)}",
        )
        for name in AMOUNTS:
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"{name} is {value}; give a number from 0 up")

    @property
    def flops(self) -> float:
        return self.student_flops + self.teacher_flops + self.evaluation_flops


AMOUNTS = tuple(field.name for field in fields(Entry) if field.name != "stage")


@dataclass(frozen=True)
class Ledger:
    """The entries of a study, or of what one winner owes."""

    entries: tuple[Entry, ...] = ()

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(self.entries + other.entries)

    def by_stage(self) -> list[Entry]:
        """One entry per stage that has any, in the order of STAGES."""
        return [
            _sum(stage, entries)
            for stage in STAGES
            if (entries := [entry for entry in self.entries if entry.stage == stage])
        ]

    def only(self, *stages: str) -> "Ledger":
        return Ledger(tuple(entry for entry in self.entries if entry.stage in stages))

    def shared(self, count: int) -> "Ledger":
        """What each of `count` winners owes of it."""
        require(count > 0, f"a cost cannot be shared by {count} winners; give at least 1")
        return Ledger(
            tuple(
                Entry(entry.stage, **{name: getattr(entry, name) / count for name in AMOUNTS})
                for entry in self.entries
            )
        )

    def total(self, name: str) -> float:
        """Sum of one of AMOUNTS, or of `flops`."""
        return float(sum(getattr(entry, name) for entry in self.entries))

    def to_dict(self) -> dict[str, Any]:
        """Amounts by stage, and `total`."""
        stages = {entry.stage: entry for entry in self.by_stage()}
        stages["total"] = _sum(STAGES[0], self.entries)
        return {
            name: {key: value for key, value in asdict(entry).items() if key != "stage"}
            | {"flops": entry.flops}
            for name, entry in stages.items()
        }


def table_rows(amounts_of: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Cells of a table under HEADER, of what `Ledger.to_dict` gives; the last row is the total."""
    columns = ("student_flops", "teacher_flops", "evaluation_flops", "flops")
    return [
        [
            name,
            f"{amounts['tokens']:,.0f}",
            *(f"{amounts[column]:.3g}" for column in columns),
            f"{amounts['seconds']:,.0f}",
        ]
        for name, amounts in amounts_of.items()
    ]


def student_entry(
    stage: str,
    architecture: Architecture,
    forward_flops: ForwardFlops,
    *,
    trained_tokens: float = 0.0,
    evaluated_tokens: float = 0.0,
    taught_tokens: float = 0.0,
    teacher: Architecture | None = None,
    seconds: float = 0.0,
) -> Entry:
    """Cost of one student's run.

    `evaluated_tokens` are those of all its evaluations together. `taught_tokens` are those that
    `teacher` read beside it, which are 0 where its targets were stored (their cost is one entry of
    the preparation).
    """
    require(
        teacher is not None or taught_tokens == 0,
        f"the teacher read {taught_tokens:,.0f} tokens beside a student; say which architecture it "
        "has",
    )
    per_token = forward_flops(architecture)
    return Entry(
        stage,
        tokens=trained_tokens or evaluated_tokens,
        student_flops=TRAINING_PASSES * per_token * trained_tokens,
        teacher_flops=forward_flops(teacher) * taught_tokens if teacher else 0.0,
        evaluation_flops=per_token * evaluated_tokens,
        seconds=seconds,
    )


def teacher_entry(
    stage: str,
    teacher: Architecture,
    forward_flops: ForwardFlops,
    *,
    read_tokens: float = 0.0,
    trained_tokens: float = 0.0,
    seconds: float = 0.0,
) -> Entry:
    """Cost of the teacher alone: importance, targets and correction."""
    passes = read_tokens + TRAINING_PASSES * trained_tokens
    return Entry(
        stage,
        tokens=read_tokens + trained_tokens,
        teacher_flops=forward_flops(teacher) * passes,
        seconds=seconds,
    )


def winner_ledger(study: Ledger, own: Ledger, winners: int) -> Ledger:
    """What one of `winners` cost: its own full distillation and test, and its share of the search.

    The search (preparation, zero-shot and trials of `study`) is shared evenly.
    """
    return study.only(PREPARATION, ZERO_SHOT, TRIALS).shared(winners) + own


Curve = Sequence[tuple[float, float]]
"""(tokens trained on, loss), in the order of the tokens."""


@dataclass(frozen=True)
class ScratchComparison:
    """What it takes to reach a student's loss from random initialisation."""

    scratch_tokens: float | None
    """None where it was not reached."""
    tokens_ratio: float
    """Tokens from scratch for each of the student's; a lower bound where it was not reached."""
    flops_ratio: float
    """FLOPs from scratch for each of the student's, search share included; a bound likewise."""
    measured_tokens: float
    """Where the curve from scratch ends."""
    earliest: bool
    """The first point of the curve was already there, so that the ratios are upper bounds."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.scratch_tokens is not None, "text": str(self)}

    def __str__(self) -> str:
        if self.scratch_tokens is not None:
            most = "at most " if self.earliest else ""
            return (
                f"from scratch the same loss takes {most}{_times(self.tokens_ratio)} times the "
                f"tokens (measured) and {most}{_times(self.flops_ratio)} times the compute, search "
                "and teacher included"
            )
        until = f"it had not reached it after {self.measured_tokens:,.0f}"
        if self.tokens_ratio <= 1:
            return (
                "from scratch it is not known what the same loss takes "
                f"({until}, which are not more than the student's)"
            )
        return (
            f"from scratch the same loss takes more than {_at_least(self.tokens_ratio)} times the "
            f"tokens ({until}) and more than {_at_least(self.flops_ratio)} times the compute, "
            "search and teacher included"
        )


def tokens_to_reach(curve: Curve, loss: float) -> float | None:
    """Tokens at which `curve` first comes down to `loss`; None if it never does.

    Between two points the loss is taken as linear in the logarithm of the tokens (in the tokens,
    from a point at 0). At the first point nothing is known of what came before: where the loss is
    there already, its tokens are an upper bound.
    """
    require(len(curve) > 0, "a curve without points tells nothing; give at least one")
    ordered = all(first[0] < second[0] for first, second in pairwise(curve))
    require(ordered and curve[0][0] >= 0, "a curve must be in the order of its tokens, from 0 up")
    if curve[0][1] <= loss:
        return float(curve[0][0])
    for (before, higher), (after, lower) in pairwise(curve):
        if lower <= loss:
            share = (higher - loss) / (higher - lower)
            if before == 0:
                return float(share * after)
            return float(before * (after / before) ** share)
    return None


def against_scratch(
    student_loss: float,
    student_tokens: float,
    student_flops: float,
    scratch_curve: Curve,
    flops_per_training_token: float,
) -> ScratchComparison:
    """Hold a student against the same shape trained from random initialisation.

    `student_flops` are all it cost, its share of teacher and search included. The losses must be
    the same metric on the same split. Points along one run with a decaying learning rate are worse
    than the end of a shorter run would be, so that such a curve overstates what scratch takes; the
    ends of several runs do not.
    """
    require(
        min(student_tokens, student_flops, flops_per_training_token) > 0,
        f"a student of {student_tokens} tokens, {student_flops} FLOPs and "
        f"{flops_per_training_token} FLOPs per token cannot be compared; all must be above 0",
    )
    reached = tokens_to_reach(scratch_curve, student_loss)
    end = float(scratch_curve[-1][0])
    tokens = end if reached is None else reached
    return ScratchComparison(
        scratch_tokens=reached,
        tokens_ratio=tokens / student_tokens,
        flops_ratio=tokens * flops_per_training_token / student_flops,
        measured_tokens=end,
        earliest=scratch_curve[0][1] <= student_loss,
    )


@dataclass(frozen=True)
class FamilyRatio:
    """Compute of a family all trained from scratch, for each unit that pruning it takes."""

    training_only: float
    """Training FLOPs of the students alone, as savings are mostly published."""
    complete: float
    """With the teacher's passes, evaluation and the search."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def family_ratio(
    scratch_flops: Sequence[float],
    tokens_ratios: Sequence[float],
    *,
    teacher_flops: float,
    evaluation_flops: float,
    search_flops: float,
) -> FamilyRatio:
    """A family of sizes, each from scratch, against the largest from scratch and the rest pruned.

    `scratch_flops` are the training FLOPs of each member from scratch, largest first, in any unit;
    `tokens_ratios`, one for each member after the first, say how many times the tokens it takes
    from scratch. Minitron (arXiv 2407.14679) gives (4.4 + 2.5 + 1.2) / (4.4 + 2.5/40 + 1.2/40) =
    1.8, without teacher and search. The other three are of all pruned members together and in the
    same unit: FLOPs of the teacher, of evaluation, and of the search's students.
    """
    require(
        len(tokens_ratios) == len(scratch_flops) - 1 and len(tokens_ratios) > 0,
        f"a family of {len(scratch_flops)} has {len(tokens_ratios)} ratios of tokens; give one for "
        "each member after the largest, of which there must be one",
    )
    require(min(*scratch_flops, *tokens_ratios) > 0, "FLOPs and ratios of tokens must be above 0")
    overhead = (teacher_flops, evaluation_flops, search_flops)
    require(min(overhead) >= 0, f"FLOPs are {overhead}; none can be below 0")
    distilled = (f / r for f, r in zip(scratch_flops[1:], tokens_ratios, strict=True))
    pruned = scratch_flops[0] + sum(distilled)
    whole = sum(scratch_flops)
    return FamilyRatio(whole / pruned, whole / (pruned + sum(overhead)))


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def _at_least(ratio: float) -> str:
    """Rounded down, since it stands after `more than`."""
    return f"{floor(ratio * 10) / 10:g}" if ratio < 10 else f"{floor(ratio):,}"


def _sum(stage: str, entries: Iterable[Entry]) -> Entry:
    entries = list(entries)
    sums = {name: float(sum(getattr(e, name) for e in entries)) for name in AMOUNTS}
    return Entry(stage, **sums)
