"""Teacher and students side by side: shapes, costs, scores, tasks; one column for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from common.intervals import Interval
from distill.evaluation import perplexity
from pruning import Architecture
from search.config.units import BYTES, FLOPS
from search.page.plots.scores import distinct_students
from search.page.shapes import Shaped
from search.page.study_facts import StudyFacts, TrialFacts
from search.page.tables import EMPTY, Group, count, number, percent
from search.results.cards import shown_interval
from search.results.results import (
    Results,
    ScoreIntervals,
    ServingCosts,
    TeacherScores,
)
from search.space.anchors import UNIFORM

TEACHER = "teacher"
FROM_NOTHING = "nothing"
"""Begins what a student from random weights was cut from."""


@dataclass(frozen=True)
class Column:
    """A model in the table."""

    name: str
    """Teacher, winner, or what else it is."""
    architecture: Architecture | None
    """Its sizes; None where they are not known."""
    parameters: int | None
    """Number of them."""
    costs: ServingCosts | None = None
    """To hold and to run it; None where they were not counted."""
    scores: ScoreIntervals | TeacherScores | None = None
    """On the test split."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further cells by the name of their row."""


TOKENS, CUT_FROM, BEFORE, AFTER = (
    "training tokens",
    "cut from",
    "KL before training",
    "selection KL after training",
)
AXES: dict[str, Callable[[Architecture], int]] = {
    "layers": lambda shape: shape.layers,
    "hidden size": lambda shape: shape.hidden,
    "heads": lambda shape: shape.heads,
    "KV heads": lambda shape: shape.kv_heads,
    "FFN": lambda shape: shape.ffn,
    "experts": lambda shape: shape.experts,
    "FFN of an expert": lambda shape: shape.expert_ffn,
    "experts per token": lambda shape: shape.experts_per_token,
    "FFN of shared experts": lambda shape: shape.shared_ffn,
    "recurrent heads": lambda shape: shape.ssm_heads,
    "channels of a recurrent head": lambda shape: shape.ssm_head_dim,
    "recurrent groups": lambda shape: shape.ssm_groups,
    "channels of the state": lambda shape: shape.ssm_state,
}
"""Row -> its size; those that no model has are left out."""


COUNTED: dict[str, Callable[[ServingCosts], str]] = {
    "without embeddings": lambda costs: count(costs.non_embedding),
    "active per token": lambda costs: count(costs.active),
    "memory (weights and KV cache)": lambda costs: BYTES.shown(costs.memory),
    "forward pass, per token": lambda costs: FLOPS.shown(costs.flops),
}
"""Row -> a cost."""


def columns_of(results: Results) -> list[Column]:
    """Teacher, winners and baselines of a finished study, each student once."""
    teacher, others = results.teacher, results.other_costs
    columns = [
        Column(
            TEACHER,
            teacher.architecture,
            teacher.parameters,
            others.get(TEACHER),
            teacher.test,
        )
    ]
    ranks = {id(winner): rank for rank, winner in enumerate(results.winners)}
    for name, student in distinct_students(results):
        rank = ranks.get(id(student), len(results.costs))
        of_winner = results.costs[rank] if rank < len(results.costs) else None
        facts = {
            TOKENS: count(student.tokens),
            CUT_FROM: student.cut_from,
            AFTER: number(student.selection_kl),
            BEFORE: number(student.zero_shot_kl),
        }
        columns.append(
            Column(
                name,
                student.architecture,
                student.parameters,
                of_winner or next((others[n] for n in name.split(", ") if n in others), None),
                student.test,
                facts,
            )
        )
    return columns


def columns_so_far(facts: StudyFacts) -> list[Column]:
    """Teacher, the best trial so far and the uniform shrink, as the database has them."""
    teacher = facts.teacher
    columns = []
    if teacher is not None:
        sizes = Architecture.from_dict(teacher["sizes"])
        columns.append(Column(TEACHER, sizes, int(teacher["parameters"])))
    uniform = next((trial for trial in facts.scored if trial.origin == UNIFORM), None)
    best = facts.best
    if best is not None:
        columns.append(_of_trial(f"best so far (trial {best.number})", best))
    if uniform is not None and (best is None or uniform.number != best.number):
        columns.append(_of_trial(f"{UNIFORM} (trial {uniform.number})", uniform))
    return columns


def _of_trial(name: str, trial: TrialFacts) -> Column:
    last = trial.last
    assert last is not None, "trials without an evaluation are left out"
    facts = {TOKENS: count(last.tokens), AFTER: number(last.kl), BEFORE: number(trial.zero_shot)}
    return Column(name, trial.architecture, trial.parameters, facts=facts)


def groups(columns: Sequence[Column], results: Results | None) -> list[Group]:
    """Rows of the table; a row that no model has a value in is left out."""
    found = [
        Group("Shape", [["written", *(_text(c.architecture) for c in columns)], *_axes(columns)]),
        Group("Size and speed", _costs(columns)),
        Group("Quality on the test split", _scores(columns)),
        Group("Training", [[n, *(c.facts.get(n, EMPTY) for c in columns)] for n in _TRAINING]),
        Group("Tasks (lm-eval)", _tasks(columns, results)),
    ]
    kept = [Group(g.name, [row for row in g.rows if set(row[1:]) - {EMPTY}]) for g in found]
    return [group for group in kept if group.rows]


_TRAINING = (CUT_FROM, TOKENS, BEFORE, AFTER)


def _axes(columns: Sequence[Column]) -> list[list[str]]:
    rows = []
    for name, size in AXES.items():
        sizes = [size(c.architecture) if c.architecture else 0 for c in columns]
        if any(sizes):
            rows.append([name, *(count(each) if each else EMPTY for each in sizes)])
    return rows


def _costs(columns: Sequence[Column]) -> list[list[str]]:
    whole = columns[0].parameters if columns[0].name == TEACHER else None
    shares = [c.parameters / whole if whole and c.parameters else None for c in columns]
    rows = [
        ["parameters", *(count(c.parameters) for c in columns)],
        ["share of the teacher", *map(percent, shares)],
    ]
    for name, shown in COUNTED.items():
        rows.append([name, *(shown(c.costs) if c.costs else EMPTY for c in columns)])
    for key, name in (("prefill_ms", "prefill"), ("decode_ms", "decoding step")):
        rows.append([name, *(_time(c.costs, key) for c in columns)])
    return rows


def _time(costs: ServingCosts | None, key: str) -> str:
    time = None if costs is None else costs.latency.get(key)
    if time is None:
        return EMPTY
    if time.measured is None:
        return f"{time.predicted:.2f} ms, predicted"
    return f"{time.measured:.2f} ms"


def _scores(columns: Sequence[Column]) -> list[list[str]]:
    rows = [
        ["KL to the teacher (nats per token)", *(_interval(c, "kl") for c in columns)],
        ["top-1 agreement", *(_interval(c, "top1_agreement") for c in columns)],
        ["perplexity", *map(_perplexity, columns)],
        ["bits per byte", *(_interval(c, "bits_per_byte") for c in columns)],
        ["cross-entropy (nats per token)", *(_interval(c, "ce") for c in columns)],
    ]
    if columns[0].name == TEACHER and columns[0].scores is not None:
        rows[0][1], rows[1][1] = "0", "1"
    return rows


def _interval(column: Column, score: str) -> str:
    found: Interval | None = getattr(column.scores, score, None)
    return shown_interval(found) if found else EMPTY


def _perplexity(column: Column) -> str:
    scores = column.scores
    if scores is None:
        return EMPTY
    found = scores.perplexity
    if found is None:
        return number(perplexity_of(scores), 2)
    mark = "" if found.seeds > 1 else " *"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]{mark}"


def perplexity_of(scores: ScoreIntervals | TeacherScores) -> float:
    """Mean perplexity; from the cross-entropy in results of before it was written."""
    if scores.perplexity is not None:
        return scores.perplexity.mean
    return perplexity(scores.ce.mean)


def _tasks(columns: Sequence[Column], results: Results | None) -> list[list[str]]:
    if results is None or not results.tasks.winner:
        return []
    rows = []
    for task, metrics in results.tasks.winner.items():
        for metric, value in metrics.items():
            own = {
                TEACHER: results.tasks.teacher.get(task, {}).get(metric),
                columns[1].name: value,
            }
            rows.append([f"{task}, {metric}", *(number(own.get(c.name)) for c in columns)])
    return rows


def _text(shape: Architecture | None) -> str:
    return EMPTY if shape is None else str(shape)


def shaped(columns: Sequence[Column], kept: Mapping[Architecture, Sequence[int]]) -> list[Shaped]:
    """The models whose shapes are known and that were cut, with the layers that each kept."""
    return [
        Shaped(column.name, column.architecture, kept.get(column.architecture))
        for column in columns
        if column.architecture is not None
        and not column.facts.get(CUT_FROM, "").startswith(FROM_NOTHING)
    ]
