"""Model cards of students that a search, run_prune or run_distill made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.intervals import Interval
from distill.evaluation import perplexity
from pruning import (
    Architecture,
    Checkpoint,
    Verdict,
    Workload,
    architecture_of,
    engines_of,
    kv_cache_bytes,
    parameter_count,
)
from pruning.engines import decilm_verdicts
from pruning.exports import DECILM, MULTIMODAL, copy_config
from search.config.names import RANDOM_INITIALISATION
from search.results.cards.model_card import Card, Origin, write_model_card
from search.results.per_layer import layer_rows
from search.results.rendering import rendered
from search.results.results import Results, StudentResult, named_students
from search.results.results_file import from_json
from search.results.stored import StoredArchitecture

FIGURES = {"kl": "KL to the teacher", "ce": "cross-entropy", "top1_agreement": "top-1 agreement"}
"""Figures of a distilled student, and how they are called."""
ONE_SEED = " *"
"""Marks an interval that seed noise is not included in."""


@dataclass(frozen=True)
class CutScores:
    """Scores of a student before training; KL in nats per token."""

    zero_shot_kl: float
    """To the teacher."""
    perplexity: float
    """Its own."""
    teacher_perplexity: float
    """Of the model that it was cut from."""
    top1_agreement: float
    """Share of tokens whose likeliest continuation is the teacher's."""


@dataclass(frozen=True)
class CutStudent:
    """A student that run_prune cut, as prune.json has it."""

    architecture: StoredArchitecture
    """Its sizes."""
    parameters: int
    """Number of them."""
    kept_layers: list[int]
    """Of the teacher, counted from 0."""
    test: CutScores | None = None
    """None where nothing was measured."""
    engines: list[Verdict] = field(default_factory=list)
    """Which engines take it."""


@dataclass(frozen=True)
class NamedModel:
    """A model that run_distill read."""

    name: str
    """Hub id, or the folder's own name."""
    parameters: int
    """Number of them."""


@dataclass(frozen=True)
class DistilledStudent:
    """A student that run_distill trained, as distill.json has it."""

    student: NamedModel
    """The model that was trained."""
    teacher: NamedModel
    """The model that it learned from."""
    tokens: int
    """Trained on."""
    before: dict[str, Interval]
    """Figures before training, by the names in FIGURES."""
    after: dict[str, Interval]
    """The same after it."""


@dataclass(frozen=True)
class _Sizes:
    """What a card of a copy says of the student and of the copy."""

    architecture: Architecture
    parameters: int
    cached: int
    """Keys and values of a token in all layers."""

    @classmethod
    def of(cls, config: Any) -> "_Sizes":
        shape = architecture_of(config)
        one_token = Workload(batch=1, context=1, bytes_per_value=1)
        cached = int(kv_cache_bytes(config, shape, one_token, kept=range(shape.layers)))
        return cls(shape, int(parameter_count(config, shape)), cached)


def write_card(
    directory: Path, results: Results, *, origin: Origin, student: StudentResult | None = None
) -> None:
    """Write README.md beside the weights of a student of a study, by default its winner."""
    student, teacher = student or results.winners[0], results.teacher
    is_best = student == results.winners[0]
    name = next(name for name, one in named_students(results) if one == student)
    rows = result_rows(results)
    text = rendered(
        "study_card.md.jinja",
        results=results,
        student=student,
        teacher=teacher,
        name=name,
        is_best=is_best,
        rows=rows,
        one_seed=any(cell.endswith(ONE_SEED) for row in rows for cell in row),
        layer_rows=layer_rows,
        figure=figure,
    )
    figures = _with_perplexity(asdict(student.checkpoint))
    if results.test_text is not None:
        figures["bits_per_byte"] = results.test_text.bits_per_byte(figures["ce"])
    card = Card(
        f"{teacher.name} as {student.architecture}",
        text,
        ("distilled",) if student.role == RANDOM_INITIALISATION else ("pruned", "distilled"),
        figures,
        tasks=results.tasks.winner if is_best else {},
        use=f"It was distilled on {student.tokens:,} tokens.",
    )
    write_model_card(directory, card, origin=origin)


def write_cut_card(directory: Path, facts: Mapping[str, Any], *, origin: Origin) -> None:
    """Write README.md beside the weights of a student that run_prune cut, from its prune.json."""
    cut, figures = from_json(CutStudent, facts), {}
    if cut.test:
        figures = {
            "kl": cut.test.zero_shot_kl,
            "perplexity": cut.test.perplexity,
            "top1_agreement": cut.test.top1_agreement,
        }
    text = rendered("cut_card.md.jinja", cut=cut, origin=origin, layer_rows=layer_rows)
    title = f"{origin.teacher} as {cut.architecture}"
    use = "It was not trained after it was cut: distil it before it is used for anything."
    write_model_card(directory, Card(title, text, ("pruned",), figures, use=use), origin=origin)


def write_copy_card(directory: Path, form: str, *, student: Path, name: str) -> None:
    """Write README.md beside the weights of a copy.

    Args:
        directory: Folder of the copy.
        form: One of `pruning.exports.EXPORTS`.
        student: Folder of the student that it was made of.
        name: How the user named the student.
    """
    origin, config = Origin.of({name: student}, []), Checkpoint(student).config
    if form == MULTIMODAL:
        text = rendered("multimodal_card.md.jinja", origin=origin, student=_Sizes.of(config))
        title = f"{origin.teacher} in its multimodal model"
        use = "What it does with pictures or sound was not measured."
        write_model_card(directory, Card(title, text, ("pruned",), use=use), origin=origin)
        return
    copy, as_decilm = copy_config(config, form), form == DECILM
    text = rendered(
        "copy_card.md.jinja",
        origin=origin,
        form=form,
        student=_Sizes.of(config),
        copy=_Sizes.of(copy),
        engines=decilm_verdicts(config, architecture_of(config)) if as_decilm else engines_of(copy),
    )
    title = f"{origin.teacher} {'as DeciLM' if as_decilm else 'padded'}"
    write_model_card(directory, Card(title, text, ("pruned",)), origin=origin)


def write_distilled_card(directory: Path, facts: Mapping[str, Any], *, origin: Origin) -> None:
    """Write README.md beside a student that run_distill trained, from its distill.json."""
    distilled = from_json(DistilledStudent, facts)
    text = rendered(
        "distilled_card.md.jinja", distilled=distilled, origin=origin, names=FIGURES, bounds=bounds
    )
    figures = _with_perplexity({name: distilled.after[name].mean for name in FIGURES})
    title = f"{distilled.student.name}, distilled from {origin.teacher}"
    use = f"It was distilled on {distilled.tokens:,} tokens."
    write_model_card(directory, Card(title, text, ("distilled",), figures, use=use), origin=origin)


def bounds(interval: Interval) -> str:
    """Mean and ends of an interval."""
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def shown_interval(interval: Interval) -> str:
    """The same, marked where seed noise is not included."""
    return bounds(interval) + ("" if interval.seeds > 1 else ONE_SEED)


def figure(interval: Interval | None) -> str:
    """The mean of an interval in two digits; nothing where it is not known."""
    return "" if interval is None else f"{interval.mean:,.2f}"


def result_rows(results: Results) -> list[list[str]]:
    """Name, parameters, KL, cross-entropy, agreement: of teacher, winners and baselines."""
    teacher = results.teacher
    rows = [["teacher", f"{teacher.parameters:,}", "0", bounds(teacher.test.ce), "1"]]
    for name, student in named_students(results):
        test = student.test
        intervals = map(shown_interval, (test.kl, test.ce, test.top1_agreement))
        rows.append([f"{name}: {student.architecture}", f"{student.parameters:,}", *intervals])
    return rows


def _with_perplexity(figures: Mapping[str, float]) -> dict[str, float]:
    return {**figures, "perplexity": perplexity(figures["ce"])}
