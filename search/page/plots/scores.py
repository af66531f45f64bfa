"""Plots of scores: every trial and full run against its size, and trade-offs of objectives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from common.intervals import Interval
from search.config.names import RANDOM_ARCHITECTURE, RANDOM_INITIALISATION
from search.config.units import COSTS
from search.page.plots.drawing import (
    ACCENT,
    FOURTH,
    GREY,
    INK,
    SECOND,
    THIRD,
    Plot,
    label_ends,
    new_figure,
)
from search.page.study_facts import StudyFacts, TrialFacts
from search.results.results import Front, Results, StudentResult, named_students
from search.space.anchors import UNIFORM
from search.statistics.pareto import front as front_of

WINNER = "winner"
TICKS = (
    (20.0, (1, 2, 5)),
    (5.0, (1, 1.5, 2, 3, 5, 7)),
    (2.5, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
)
"""Least ratio of the ends of a logarithmic axis, and the steps of its ticks in each power of
ten."""
GAP = 0.055
"""Least distance of two labels, as a share of a figure's height."""


@dataclass(frozen=True)
class Look:
    """How a student is drawn: colour, marker and dashes, so that no colour is needed."""

    colour: str
    marker: str
    dashes: str


LOOKS = {
    WINNER: Look(ACCENT, "D", "-"),
    UNIFORM: Look(SECOND, "s", "--"),
    RANDOM_ARCHITECTURE: Look(THIRD, "^", "-."),
    RANDOM_INITIALISATION: Look(FOURTH, "v", ":"),
}
"""Name of a student -> how it is drawn wherever it is."""
OTHER = Look(INK, "o", "-")


def look_of(name: str) -> Look:
    """Of a winner, a runner-up or a baseline; of one that is several of these, as the first."""
    return LOOKS.get(name.partition(",")[0], OTHER)


def distinct_students(results: Results) -> list[tuple[str, StudentResult]]:
    """Winners and baselines, each once, with all its names."""
    found: dict[tuple[object, ...], tuple[str, StudentResult]] = {}
    for name, student in named_students(results):
        key = student.architecture, student.cut_from, student.tokens
        names = f"{found[key][0]}, {name}" if key in found else name
        found[key] = names, found[key][1] if key in found else student
    return list(found.values())


def size_plot(facts: StudyFacts, results: Results | None) -> Plot | None:
    """KL to the teacher against parameters: trials after short runs, students after full runs."""
    figure, axes = new_figure()
    rows = _draw_trials(axes, facts.scored)
    labels = []
    for name, student in distinct_students(results) if results else []:
        look, kl = look_of(name), student.test.kl
        _draw_interval(axes, student.parameters, kl, look=look)
        labels.append((student.parameters, kl.mean, name, look.colour))
        rows.append([name, str(student.architecture), student.parameters, kl.mean, kl.low, kl.high])
    if not rows:
        return None
    best = facts.best
    if not labels and best is not None and best.last is not None and best.parameters:
        axes.plot(best.parameters, best.last.kl, "D", color=ACCENT)
        labels.append((best.parameters, best.last.kl, f"trial {best.number}", ACCENT))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    logarithmic(axes)
    axes.set_xlabel("parameters")
    axes.set_ylabel("KL to the teacher, nats per token")
    label_ends(axes, labels, gap=GAP)
    columns = ["student", "architecture", "parameters", "kl", "low", "high"]
    return Plot(
        "size",
        "KL against size",
        _size_sentence(facts, results),
        figure,
        pd.DataFrame(rows, columns=columns),
    )


def _draw_trials(axes: Axes, trials: Sequence[TrialFacts]) -> list[list[object]]:
    """Trials in the background; returns their rows."""
    rows: list[list[object]] = []
    for marker, some in (
        ("o", [t for t in trials if not t.stopped]),
        ("x", [t for t in trials if t.stopped]),
    ):
        points = [(t.parameters, t.last.kl) for t in some if t.last is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker, color=GREY, fillstyle="none", markersize=6)
        rows += [
            [
                f"trial {t.number}, {t.state}",
                str(t.architecture),
                t.parameters,
                t.last.kl,
                None,
                None,
            ]
            for t in some
            if t.last is not None
        ]
    return rows


def _draw_interval(axes: Axes, x: float, interval: Interval, *, look: Look) -> None:
    axes.errorbar(
        x,
        interval.mean,
        yerr=[[interval.mean - interval.low], [interval.high - interval.mean]],
        marker=look.marker,
        color=look.colour,
        markersize=8,
        capsize=4,
        linestyle="none",
    )


def _size_sentence(facts: StudyFacts, results: Results | None) -> str:
    sizes = [trial.parameters for trial in facts.scored if trial.parameters]
    text = "Lower is better."
    if sizes:
        text = (
            f"{len(sizes)} trials between {min(sizes):,} and {max(sizes):,} parameters after their "
            "short runs, on the selection split (circles; crosses were stopped early). Lower is "
            "better."
        )
    if results is None:
        return text
    named = ", ".join(
        f"{name} {student.test.kl.mean:.4f}" for name, student in distinct_students(results)
    )
    return f"{text} Filled marks are full runs on the test split, with 95 % intervals: {named}."


def trade_off_plots(facts: StudyFacts, front: Front | None) -> list[Plot]:
    """KL against each other objective, with the trials that others dominate; [] with one."""
    complete = [trial for trial in facts.scored if trial.complete]
    names = facts.objectives.names
    if not facts.objectives.several or not complete:
        return []
    values = np.array([trial.trial.values for trial in complete], dtype=float)
    minimised = [facts.objectives.minimised(row) for row in values]
    ahead = set(front_of(np.array(minimised)).tolist())
    return [
        _trade_off(complete, values[:, [0, place]], ahead=ahead, front=front, name=name)
        for place, name in enumerate(names)
        if place
    ]


def _trade_off(
    trials: Sequence[TrialFacts],
    values: np.ndarray,
    *,
    ahead: set[int],
    front: Front | None,
    name: str,
) -> Plot:
    figure, axes = new_figure()
    for marker, colour, fill, some in (
        ("o", GREY, "none", [i for i in range(len(trials)) if i not in ahead]),
        ("D", ACCENT, "full", sorted(ahead, key=lambda i: values[i, 1])),
    ):
        line = "--" if some and some[0] in ahead else "none"
        x, y = values[some, 1], values[some, 0]
        axes.plot(x, y, marker, color=colour, fillstyle=fill, linestyle=line, linewidth=1)
    labels = [
        (values[i, 1], values[i, 0], _front_label(trials[i], front), ACCENT)
        for i in sorted(ahead, key=lambda i: values[i, 0])
    ]
    if name in COSTS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    logarithmic(axes)
    axes.set_xlabel(shown_objective(name), parse_math=False)
    axes.set_ylabel(shown_objective("kl"))
    label_ends(axes, labels[:12], gap=GAP)
    knee = f" The knee is trial {front.knee.trial}, {front.knee.architecture}." if front else ""
    data = pd.DataFrame(
        {
            "trial": [t.number for t in trials],
            "architecture": [str(t.architecture) for t in trials],
            "kl": values[:, 0],
            name: values[:, 1],
            "on the front": [i in ahead for i in range(len(trials))],
        }
    )
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    return Plot(
        f"trade-off-{slug}",
        f"Trade-off of KL and {name}",
        f"{len(ahead)} of {len(trials)} finished trials are on the Pareto front (filled diamonds); "
        f"the others (circles) are dominated: another trial is better in one objective and no "
        f"worse in the rest.{knee}",
        figure,
        data,
    )


def _front_label(trial: TrialFacts, front: Front | None) -> str:
    mark = ", knee" if front is not None and front.knee.trial == trial.number else ""
    return f"trial {trial.number}{mark}"


def volume_plot(front: Front | None) -> Plot | None:
    """The front's hypervolume over the finished trials."""
    if front is None:
        return None
    figure, axes = new_figure(2.8)
    trials = list(range(1, len(front.hypervolume) + 1))
    axes.plot(trials, front.hypervolume, "o-", color=ACCENT, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("finished trials")
    axes.set_ylabel("hypervolume")
    return Plot(
        "hypervolume",
        "Hypervolume of the front",
        f"The volume that the Pareto front dominates, after each of {len(trials)} finished trials: "
        "where it is flat, the last trials added nothing to the front.",
        figure,
        pd.DataFrame({"finished trials": trials, "hypervolume": front.hypervolume}),
    )


def shown_objective(name: str) -> str:
    """An objective's name with its unit."""
    if name == "kl":
        return "KL to the teacher, nats per token"
    units = {"memory": "bytes", "flops": "FLOP per token", "parameters": "parameters"}
    if name.endswith("_ms"):
        return f"{name.removesuffix('_ms')}, ms"
    return f"{name}, {units[name]}" if name in units and units[name] != name else name


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis from below to above, with ticks in plain numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = next((some for ratio, some in TICKS if high / low >= ratio), None)
    axes.yaxis.set_major_locator(MaxNLocator(6) if steps is None else LogLocator(subs=steps))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
