"""Sections of the page: results and facts of a study as tables and lines."""

from collections.abc import Callable, Mapping
from typing import Any

from common.progress import counted
from search.config.sampler import chosen_name
from search.config.units import BYTES
from search.page.plots.scores import shown_objective
from search.page.side_by_side import perplexity_of
from search.page.study_facts import StudyFacts, TrialFacts
from search.page.tables import EMPTY, Table, count, duration, number, percent
from search.results.cards import bounds
from search.results.costs import cost_lines
from search.results.ledger import HEADER as LEDGER_HEADER
from search.results.ledger import TOTAL, table_rows
from search.results.per_layer import (
    BLOCKS_HEADER,
    COMBINATIONS_HEADER,
    LAYERS_HEADER,
    PerLayerResult,
    block_rows,
    combination_rows,
    correlation_lines,
    layer_rows,
)
from search.results.results import Results
from search.statistics.rank_correlation import HEADER as CORRELATION_HEADER
from search.statistics.rank_correlation import MINIMUM

LIKELIEST = 5
"""Candidates whose chance of being the best is shown."""
FINGERPRINTS = ("teacher", "tokenizer", "corpus")
"""Settings that are recorded by a fingerprint of their content."""
LONGEST_LIST = 8
"""Choices of an axis that are written out."""


def glance(results: Results) -> list[tuple[str, str, str]]:
    """Figures of the winner that a reader looks for first: name, value, and what to hold it
    against."""
    best, teacher, costs = results.winners[0], results.teacher, results.costs[0]
    scores = best.test
    found = [
        (
            "Parameters",
            count(best.parameters),
            f"{best.parameters / teacher.parameters:.1%} of the teacher's",
        ),
        ("KL to the teacher", number(scores.kl.mean), "nats per token, test split"),
        ("Top-1 agreement", percent(scores.top1_agreement.mean), "with the teacher's choice"),
        (
            "Perplexity",
            number(perplexity_of(scores), 2),
            f"teacher {perplexity_of(teacher.test):.2f}",
        ),
        ("Memory", BYTES.shown(costs.memory), "weights and KV cache"),
    ]
    for name, time in costs.latency.items():
        known = time.predicted if time.measured is None else time.measured
        how = "predicted" if time.measured is None else "measured"
        found.append((shown_objective(name).partition(",")[0].title(), f"{known:.2f} ms", how))
    total = results.ledger[TOTAL]
    cost = f"device time, {total.flops:.2g} FLOPs"
    return [*found, ("Cost of the search", duration(total.seconds), cost)]


def objective_names(facts: StudyFacts, results: Results | None) -> str:
    """What is minimised or maximised, with units."""
    if results is not None and results.objectives:
        return ", ".join(
            f"{one.name} ({one.unit}, {'lower' if one.direction == 'minimize' else 'higher'} is "
            "better)"
            for one in results.objectives
        )
    return "; ".join(shown_objective(name) for name in facts.objectives.names)


def short_table(results: Results) -> Table | None:
    """The winner's architecture against baselines that ran briefly; None where there are none."""
    short = results.short
    if short is None or len(short.selection_kl) < 2:
        return None
    rows = [
        [
            name,
            bounds(kl),
            bounds(short.differences[name]) if name in short.differences else EMPTY,
        ]
        for name, kl in short.selection_kl.items()
    ]
    return Table(
        "short",
        f"Short runs of {short.tokens:,} tokens against baselines: selection split, by which the "
        "winner was chosen, one seed; 95 % intervals over sequences, differences paired.",
        ["student", "KL to the teacher, nats per token", "winner minus this"],
        rows,
    )


def likeliest(results: Results) -> list[str]:
    """The architectures that may be the best."""
    chances = [f"{shape} ({chance:.0%})" for shape, chance in results.chances.items()][:LIKELIEST]
    if not chances:
        return []
    return [f"Best by the short runs, given their noise: {', '.join(chances)}."]


def decision_notes(facts: StudyFacts, results: Results | None) -> list[str]:
    """What scores are not shown to predict, and what there is too little to say of."""
    notes = (
        [f"{line[0].upper()}{line[1:]}." for line in results.fidelity_warnings] if results else []
    )
    if len(facts.scored) < MINIMUM:
        notes.append(
            f"Fewer than {MINIMUM} trials were scored: too few to say which axis decides, or what "
            "an early score predicts."
        )
    return notes


def correlation_table(results: Results | None) -> Table | None:
    """Rank correlations of a finished study."""
    if results is None or not results.fidelity_rows:
        return None
    caption = "Rank correlations with 95 % intervals; missing: candidates without the outcome."
    return Table("rank-correlations", caption, CORRELATION_HEADER, results.fidelity_rows)


def engine_table(results: Results) -> Table | None:
    """Engines and whether they take the winner."""
    if not results.engines:
        return None
    rows = [
        [one.version, "yes" if one.takes else "no", one.reason or EMPTY] for one in results.engines
    ]
    caption = "Engines that were tried, and whether they take the winner."
    return Table("engines", caption, ["engine", "takes it", "why not"], rows)


def ledger_table(results: Results) -> Table:
    """Cost of every stage."""
    caption = "Tokens, FLOPs and device-seconds by stage; FLOPs of student, teacher and evaluation."
    return Table("ledger", caption, LEDGER_HEADER, table_rows(results.ledger))


def layered_tables(results: Results) -> list[Table]:
    """Combinations of blocks, the layers of each winner that differ, and the block library."""
    found = results.per_layer
    if found is None:
        return []
    tables = [
        Table(
            "combinations", "Combinations of blocks.", COMBINATIONS_HEADER, combination_rows(found)
        )
    ]
    for place, student in enumerate(results.winners):
        if student.architecture.per_layer:
            caption = f"Layers of {student.architecture}, {student.parameters:,} parameters."
            rows = layer_rows(student.architecture)
            tables.append(Table(f"layers-{place + 1}", caption, LAYERS_HEADER, rows))
    if found.blocks:
        caption = (
            "Block-wise distillation: error of each size of a sub-block against the teacher's, "
            "relative to leaving it out; mean over the layers."
        )
        tables.append(Table("blocks", caption, BLOCKS_HEADER, block_rows(found.blocks)))
    return tables


def layered_lines(found: PerLayerResult) -> list[str]:
    """What else there is to say of layers that differ."""
    return [*found.ended, *correlation_lines(found)]


def trial_table(facts: StudyFacts) -> Table:
    """All trials."""
    rest = facts.objectives.names[1:]
    columns: dict[str, Callable[[TrialFacts], str]] = {
        "trial": lambda t: str(t.number),
        "state": lambda t: t.state,
        "what it is": lambda t: t.origin,
        "shape": lambda t: str(t.architecture or EMPTY),
        "parameters": lambda t: count(t.parameters),
        "KL before training": lambda t: number(t.zero_shot),
        "tokens": lambda t: count(t.last.tokens if t.last else None),
        "selection KL": lambda t: number(t.last.kl if t.last else None),
        "top-1 agreement": lambda t: percent(t.last.top1_agreement if t.last else None),
        **{shown_objective(name): _objective(place) for place, name in enumerate(rest, 1)},
        "seconds": lambda t: EMPTY if t.seconds is None else f"{t.seconds:.1f}",
        "why it failed": lambda t: t.error or EMPTY,
    }
    cells = {name: [cell(trial) for trial in facts.trials] for name, cell in columns.items()}
    shown = {name: some for name, some in cells.items() if set(some) - {EMPTY}} or {"trial": []}
    rows = list(zip(*shown.values(), strict=True))
    caption = "Every trial of the study, scored on the selection split; KL in nats per token."
    return Table("trials", caption, list(shown), rows, sortable=True)


def _objective(place: int) -> Callable[[TrialFacts], str]:
    def cell(trial: TrialFacts) -> str:
        values = trial.trial.values
        return EMPTY if not values or len(values) <= place else f"{values[place]:,.6g}"

    return cell


def run_table(facts: StudyFacts, results: Results | None) -> Table:
    """When, on what and with which versions."""
    rows = [["study", facts.name]]
    begun = [trial.trial.datetime_start for trial in facts.trials if trial.trial.datetime_start]
    if begun:
        rows.append(["first trial begun", f"{min(begun):%Y-%m-%d %H:%M}"])
    run = results.run if results else None
    if run is not None:
        finished = run.finished.replace("T", " ")
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        rows += [["finished", finished], ["device", run.device], ["machine", run.machine]]
        rows.append(["versions", versions])
    elif facts.settings.get("device"):
        rows.append(["device", str(facts.settings["device"])])
    seconds = facts.attributes.get("preparation_seconds")
    if seconds:
        rows.append(["preparation", duration(seconds)])
    if results is not None:
        training = results.training
        rows.append(
            [
                "training",
                f"{counted(training.batch, 'sequence')} of {training.block} tokens a step, "
                f"{training.precision}, loss {training.loss}",
            ]
        )
    return Table("run", "When, where and with what the study ran.", ["what", "value"], rows)


def cost_notes(results: Results) -> list[str]:
    """How well workers were used, and times as they were predicted and measured."""
    notes = []
    if results.training_share is not None:
        notes.append(
            f"Worker utilisation: {results.training_share:.0%} of the workers' time during the "
            "trials went into training and evaluation."
        )
    _, *times = cost_lines(results.costs)  # what is counted stands side by side already
    return [*notes, *times]


def estimates_table(results: Results) -> Table | None:
    """What the study was estimated to take beside what it took."""
    found = results.estimates
    if found is None:
        return None
    named = (
        ("memory of a run", found.memory_bytes, BYTES.shown),
        ("trials, device-seconds", found.trial_seconds, count),
        ("full runs and baselines, device-seconds", found.full_seconds, count),
    )
    rows = [
        [name, shown(one.planned), shown(one.measured), f"{one.off:+.0%}"]
        for name, one, shown in named
        if one is not None
    ]
    header = ["what", "estimated", "measured", "estimate is off by"]
    return Table("estimates", "Estimates of the study, held against it.", header, rows)


def settings_table(facts: StudyFacts) -> Table:
    """Everything that the scores depend on, a row for each section of the options."""
    rows = []
    for name, value in facts.settings.items():
        shown = _shown(_with_sampler(facts, value) if name == "sampler" else value)
        if name in FINGERPRINTS:
            shown = f"fingerprint {shown}"
        if shown:
            rows.append([name, shown])
    caption = "Settings that the study's scores depend on; what is not set is left out."
    return Table("settings", caption, ["setting", "value"], rows)


def _with_sampler(facts: StudyFacts, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sampler's settings with what `auto` has stood for."""
    name, objectives = settings.get("name", ""), len(facts.objectives.names)
    used = (chosen_name(name, n, objectives=objectives) for n in range(len(facts.frozen)))
    chosen = ", then ".join(dict.fromkeys(used))
    return {**settings, "name": f"{name} ({chosen})" if chosen not in ("", name) else name}


def _shown(value: Any) -> str:
    """A setting, or the settings of a section, in words; "" for one that is not set."""
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = ((name, _shown(one)) for name, one in value.items())
        return "; ".join(f"{name} {shown}" for name, shown in parts if shown)
    if isinstance(value, list):
        texts = [str(one) for one in value]
        if len(texts) > LONGEST_LIST:
            texts = [*texts[:3], "...", f"{texts[-1]} ({len(value)} choices)"]
        return ", ".join(texts)
    return f"{value:,}" if isinstance(value, int) else str(value)
