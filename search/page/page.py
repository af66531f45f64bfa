"""The report of a study: one self-contained page, and its figures and tables beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from common.files import write_file_atomically
from common.version import installed_version
from pruning import Architecture
from search.page.plots.axes import correlation_plot, correlations_of, importance_plot
from search.page.plots.curves import full_curves_plot, trial_curves_plot
from search.page.plots.drawing import Plot
from search.page.plots.scores import size_plot, trade_off_plots, volume_plot
from search.page.sections import (
    correlation_table,
    cost_notes,
    decision_notes,
    engine_table,
    estimates_table,
    glance,
    layered_lines,
    layered_tables,
    ledger_table,
    likeliest,
    objective_names,
    run_table,
    settings_table,
    short_table,
    trial_table,
)
from search.page.shapes import layer_map, legend
from search.page.side_by_side import Column, columns_of, columns_so_far, groups, shaped
from search.page.so_far import statements_so_far
from search.page.study_facts import StudyFacts
from search.page.tables import Table, csv_of
from search.results.rendering import rendered
from search.results.results import Results
from search.results.statements import Statement
from workspace.layout import FIGURES, Workspace

NO_TIMES = (
    "Decode and prefill times were not measured: a limit or objective of prefill_ms or decode_ms "
    "has them measured."
)
SECTIONS = [
    ("Which student to take", "verdict"),
    ("Side by side", "models-title"),
    ("Scores and curves", "figures-title"),
    ("What decides", "decides-title"),
    ("All trials", "trials-title"),
    ("How it was run", "setting-title"),
    ("Files", "files-title"),
]


FILES = ["what", "where"]
OF_RESULTS = (
    *("glance", "unmeasured_times", "short", "completions", "per_layer", "layered_tables"),
    *("layered_lines", "likeliest", "engines", "ledger", "estimates", "cost_notes", "command"),
)
"""Parts of the page that only a finished search has."""


@dataclass(frozen=True)
class StudyPage:
    """Everything that the page of one student is made of."""

    facts: StudyFacts
    """Of the database."""
    results: Results | None = None
    """Of the finished search; None while it runs, or where its workspace is not at hand."""
    kept: Mapping[Architecture, Sequence[int]] = field(default_factory=dict)
    """Shape -> the teacher's layers that such a student keeps, as far as they are known."""
    files: Sequence[tuple[str, str]] = ()
    """What there is of the study, and where."""
    missing: Sequence[str] = ()
    """Sentences on what could not be had."""

    @property
    def title(self) -> str:
        """The first heading."""
        results, teacher = self.results, self.facts.teacher
        if results is not None:
            return f"{results.teacher.name} as {results.winners[0].architecture}"
        return f"Students of {teacher['name']}" if teacher else f"Study {self.facts.name}"

    @property
    def statements(self) -> list[Statement]:
        """Which student to take, in words."""
        return self.results.verdicts if self.results else statements_so_far(self.facts)

    @cached_property
    def score_plots(self) -> list[Plot]:
        """Of trials and full runs."""
        results, facts = self.results, self.facts
        winner = results.winners[0].architecture if results else None
        front = results.front if results else None
        found = [
            size_plot(facts, results),
            *trade_off_plots(facts, front),
            volume_plot(front),
            trial_curves_plot(facts, winner),
            full_curves_plot(results),
        ]
        return [plot for plot in found if plot is not None]

    @cached_property
    def decision_plots(self) -> list[Plot]:
        """Of axes and early scores."""
        pairs = self.results.fidelity if self.results else correlations_of(self.facts)
        found = [importance_plot(self.facts), correlation_plot(pairs)]
        return [plot for plot in found if plot is not None]

    @cached_property
    def columns(self) -> list[Column]:
        """Teacher and students side by side."""
        return columns_of(self.results) if self.results else columns_so_far(self.facts)

    def html(self) -> str:
        """The page."""
        return rendered(
            "page/study.html.jinja",
            title=self.title,
            under=self._under(),
            sections=SECTIONS,
            made=made(),
            verdicts=self.statements,
            missing=self.missing,
            results=self.results,
            folder=FIGURES,
            score_plots=self.score_plots,
            decision_plots=self.decision_plots,
            decision_notes=decision_notes(self.facts, self.results),
            correlations=correlation_table(self.results),
            run=run_table(self.facts, self.results),
            settings=settings_table(self.facts),
            files=Table("files", "Files of the study, and what they are.", FILES, self.files),
            trials=trial_table(self.facts),
            **models_shown(self.columns, self.kept, self.results),
            **self._of_results(),
        )

    def _of_results(self) -> dict[str, Any]:
        """What a finished search alone has."""
        results = self.results
        if results is None:
            return dict.fromkeys(OF_RESULTS)
        run, layered = results.run, results.per_layer
        shown = {
            "glance": glance(results),
            "unmeasured_times": "" if any(one.latency for one in results.costs) else NO_TIMES,
            "short": short_table(results),
            "completions": results.completions,
            "per_layer": layered,
            "layered_tables": layered_tables(results),
            "layered_lines": layered_lines(layered) if layered else [],
            "likeliest": likeliest(results),
            "engines": engine_table(results),
            "ledger": ledger_table(results),
            "estimates": estimates_table(results),
            "cost_notes": cost_notes(results),
            "command": run.command if run else "",
        }
        assert set(shown) == set(OF_RESULTS)
        return shown

    def write(self, outputs: Workspace) -> None:
        """Write the page, its figures, and the tables of trials and of models."""
        folder = outputs.figures
        folder.mkdir(parents=True, exist_ok=True)
        for plot in [*self.score_plots, *self.decision_plots]:
            plot.write(folder)
        if self.columns:
            write_file_atomically(folder / "models.csv", models_csv(self.columns, self.results))
        write_file_atomically(outputs.trials_table, self.facts.table().to_csv(index=False))
        write_file_atomically(outputs.report, self.html())

    def _under(self) -> str:
        """The line under the first heading."""
        parts = [f"Study {self.facts.name}"]
        if self.facts.member is not None:
            parts.append(f"member {self.facts.member} of its family")
        parts.append(f"objectives: {objective_names(self.facts, self.results)}")
        if self.results is not None:
            parts.append(f"budget: {self.results.budget}")
        parts.append(", ".join(f"{n} {state}" for state, n in self.facts.states.items()))
        return "; ".join(part for part in parts if part)


def models_shown(
    columns: Sequence[Column],
    kept: Mapping[Architecture, Sequence[int]],
    results: Results | None,
) -> dict[str, Any]:
    """Models side by side, their layers, and how their shapes are written."""
    models = shaped(columns, kept)
    if not models:
        return {"columns": [], "groups": [], "map": None, "example": None, "legend": []}
    example = models[min(1, len(models) - 1)].architecture
    return {
        "columns": columns,
        "groups": groups(columns, results),
        "map": layer_map(models),
        "example": example,
        "legend": legend(example, [one.architecture for one in models]),
    }


def models_csv(columns: Sequence[Column], results: Results | None) -> str:
    """The models side by side as CSV, a row for each figure."""
    rows = [["", *(column.name for column in columns)]]
    rows += [list(row) for group in groups(columns, results) for row in group.rows]
    return csv_of(rows)


def made() -> str:
    """The last line of a page."""
    now = datetime.now().astimezone()
    return f"Made by Espalier {installed_version()} on {now:%Y-%m-%d at %H:%M %Z}."
