"""The report of a study: one self-contained page, and its figures and tables beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from common.files import write_file_atomically
from common.version import installed_version
from pruning import Architecture
from search.page.plots.axes import correlation_plot, correlations_of, importance_plot
from search.page.plots.curves import full_curves_plot, trial_curves_plot
from search.page.plots.drawing import Plot
from search.page.plots.scores import size_plot, trade_off_plots, volume_plot
from search.page.sections import (
    correlation_table,
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
from search.results.costs import cost_lines
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

    def html(self) -> str:
        """The page."""
        results, facts = self.results, self.facts
        columns = columns_of(results) if results else columns_so_far(facts)
        models = shaped(columns, self.kept)
        example = models[min(1, len(models) - 1)].architecture if models else None
        layered = results.per_layer if results else None
        return rendered(
            "page/study.html.jinja",
            title=self.title,
            under=self._under(),
            sections=SECTIONS,
            made=made(),
            verdicts=self.statements,
            missing=self.missing,
            glance=glance(results) if results else [],
            results=results,
            columns=columns if models else [],
            groups=groups(columns, results),
            unmeasured_times=self._unmeasured_times(),
            map=layer_map(models) if models else None,
            example=example,
            legend=legend(example, [one.architecture for one in models]) if example else [],
            short=short_table(results) if results else None,
            completions=results.completions if results else [],
            folder=FIGURES,
            score_plots=self.score_plots,
            per_layer=layered,
            layered_tables=layered_tables(results) if results else [],
            layered_lines=layered_lines(layered) if layered else [],
            likeliest=likeliest(results) if results else [],
            decision_plots=self.decision_plots,
            decision_notes=decision_notes(facts, results),
            correlations=correlation_table(results),
            engines=engine_table(results) if results else None,
            ledger=ledger_table(results) if results else None,
            estimates=estimates_table(results) if results else None,
            cost_notes=self._cost_notes(),
            command=results.run.command if results and results.run else "",
            run=run_table(facts, results),
            settings=settings_table(facts),
            files=Table("files", "Files of the study, and what they are.", FILES, self.files),
            trials=trial_table(facts),
        )

    def write(self, outputs: Workspace) -> None:
        """Write the page, its figures, and the tables of trials and of models."""
        folder = outputs.figures
        folder.mkdir(parents=True, exist_ok=True)
        for plot in [*self.score_plots, *self.decision_plots]:
            plot.write(folder)
        columns = columns_of(self.results) if self.results else columns_so_far(self.facts)
        if columns:
            write_file_atomically(folder / "models.csv", models_csv(columns, self.results))
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

    def _unmeasured_times(self) -> str:
        results = self.results
        return NO_TIMES if results and not any(one.latency for one in results.costs) else ""

    def _cost_notes(self) -> list[str]:
        results = self.results
        if results is None:
            return []
        notes = []
        if results.training_share is not None:
            notes.append(
                f"Worker utilisation: {results.training_share:.0%} of the workers' time during the "
                "trials went into training and evaluation."
            )
        _, *times = cost_lines(results.costs)  # what is counted stands side by side already
        return [*notes, *times]


FILES = ["what", "where"]


def models_csv(columns: Sequence[Column], results: Results | None) -> str:
    """The models side by side as CSV, a row for each figure."""
    rows = [["", *(column.name for column in columns)]]
    rows += [list(row) for group in groups(columns, results) for row in group.rows]
    return csv_of(rows)


def made() -> str:
    """The last line of a page."""
    now = datetime.now().astimezone()
    return f"Made by Espalier {installed_version()} on {now:%Y-%m-%d at %H:%M %Z}."
