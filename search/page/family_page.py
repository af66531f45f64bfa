"""The page of a family: all members side by side, with the way to each one's own page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
from matplotlib.ticker import EngFormatter

from common.files import write_file_atomically
from search.page.page import StudyPage, made, models_csv, models_shown
from search.page.plots.drawing import ACCENT, Plot, label_ends, new_figure
from search.page.plots.scores import GAP, WINNER, logarithmic, look_of
from search.page.side_by_side import (
    TEACHER,
    Column,
    columns_of,
    columns_so_far,
)
from search.page.tables import Table, duration
from search.results.ledger import TOTAL
from search.results.rendering import rendered
from search.results.results import Results
from search.results.statements import BAD, NOTE, Statement
from search.space.anchors import UNIFORM
from workspace.layout import FIGURES, Workspace

SECTIONS = [
    ("Which student to take", "verdict"),
    ("Side by side", "models-title"),
    ("Size against quality", "figures-title"),
    ("Each member", "members-title"),
]


@dataclass(frozen=True)
class FamilyPage:
    """The pages of all members, the largest first."""

    study: str
    """Its name."""
    pages: Sequence[StudyPage]
    """One for each member."""

    @property
    def finished(self) -> list[tuple[str, Results]]:
        """Name and results of the members that have any."""
        return [(str(p.facts.member), p.results) for p in self.pages if p.results is not None]

    @property
    def statements(self) -> list[Statement]:
        """What is said first of every member; what speaks against a winner before all else."""
        said = [
            Statement(one.tone, f"{page.facts.member}: {one.text}")
            for page in self.pages
            for one in page.statements[:1]
        ]
        found = [Statement(NOTE, self._headline()), *said]
        return sorted(found, key=lambda one: one.tone != BAD)

    def _headline(self) -> str:
        done = self.finished
        if not done:
            return f"{len(self.pages)} members are searched for; none has been distilled in full."
        sizes = "; ".join(
            f"{name} is {results.winners[0].architecture}, {results.winners[0].parameters:,} "
            f"parameters, test KL {results.winners[0].test.kl.mean:.4f}"
            for name, results in done
        )
        return f"{len(done)} of {len(self.pages)} members are done: {sizes}."

    @cached_property
    def columns(self) -> list[Column]:
        """The teacher and the best student of each member."""
        columns: list[Column] = []
        for page in self.pages:
            own = columns_of(page.results) if page.results else columns_so_far(page.facts)
            columns += [one for one in own if one.name == TEACHER and not columns]
            best = next((one for one in own if one.name != TEACHER), None)
            if best is not None:
                columns.append(replace(best, name=f"{page.facts.member}: {best.name}"))
        return columns

    @cached_property
    def plots(self) -> list[Plot]:
        """KL of the members against their sizes."""
        plot = _size_plot(self.finished)
        return [] if plot is None else [plot]

    def html(self) -> str:
        """The page."""
        kept = {shape: layers for page in self.pages for shape, layers in page.kept.items()}
        return rendered(
            "page/family.html.jinja",
            title=f"Family of {len(self.pages)} students",
            under=f"Study {self.study}",
            sections=SECTIONS,
            made=made(),
            verdicts=self.statements,
            **models_shown(self.columns, kept, None),
            folder=FIGURES,
            plots=self.plots,
            members=_cost_table(self.finished),
            pages=[
                (page.facts.member, f"family/{page.facts.member}/report.html", page.statements)
                for page in self.pages
            ],
        )

    def write(self, outputs: Workspace) -> None:
        """Write the page, its figure and its table; the members' pages are written by
        themselves."""
        outputs.figures.mkdir(parents=True, exist_ok=True)
        for plot in self.plots:
            plot.write(outputs.figures)
        if self.columns:
            write_file_atomically(outputs.figures / "models.csv", models_csv(self.columns, None))
        write_file_atomically(outputs.report, self.html())


def _size_plot(members: Sequence[tuple[str, Results]]) -> Plot | None:
    if not members:
        return None
    figure, axes = new_figure()
    winners = [(r.winners[0].parameters, r.winners[0].test.kl.mean, name) for name, r in members]
    uniform = [
        (r.baselines[UNIFORM].parameters, r.baselines[UNIFORM].test.kl.mean, name)
        for name, r in members
        if UNIFORM in r.baselines
    ]
    for label, points in ((WINNER, winners), (UNIFORM, uniform)):
        look = look_of(label)
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.dashes, markersize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    logarithmic(axes)
    axes.set_xlabel("parameters")
    axes.set_ylabel("test KL to the teacher, nats per token")
    labels = [(x, y, f"{name}: winner", ACCENT) for x, y, name in winners]
    colour = look_of(UNIFORM).colour
    labels += [(x, y, f"{name}: {UNIFORM}", colour) for x, y, name in uniform]
    label_ends(axes, labels, gap=GAP)
    rows = [[name, WINNER, x, y] for x, y, name in winners]
    rows += [[name, UNIFORM, x, y] for x, y, name in uniform]
    also = "" if not uniform else ", and uniform shrinks of the same budgets (squares, dashed)"
    return Plot(
        "size",
        "KL of the members against their sizes",
        f"Test KL of the best student of each member after full distillation (diamonds){also}. "
        "Lower is better.",
        figure,
        pd.DataFrame(rows, columns=["member", "student", "parameters", "kl"]),
    )


def _cost_table(members: Sequence[tuple[str, Results]]) -> Table:
    rows = []
    for name, results in members:
        total = results.ledger[TOTAL]
        rows.append(
            [
                name,
                results.winners[0].cut_from,
                f"{total.tokens:,.0f}",
                f"{total.flops:.3g}",
                duration(total.seconds),
            ]
        )
    header = ["member", "cut from", "tokens", "FLOPs", "device time"]
    caption = "Cost of each member: its trials, its full runs and its share of the preparation."
    return Table("members", caption, header, rows)
