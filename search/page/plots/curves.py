"""Plots of learning curves: of the trials, and of full runs."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from distill.recipes import CurvePoint
from pruning import Architecture
from search.page.plots.drawing import ACCENT, GREY, Plot, label_ends, new_figure
from search.page.plots.scores import GAP, WINNER, Look, distinct_students, logarithmic, look_of
from search.page.study_facts import StudyFacts, TrialFacts
from search.results.results import Results
from search.space.anchors import UNIFORM

MOST_CURVES = 150
"""Trials in the background, beyond which no more can be told apart."""


def trial_curves_plot(facts: StudyFacts, winner: Architecture | None) -> Plot | None:
    """Selection KL of every trial, the winner's in front.

    Args:
        facts: Of the study.
        winner: Shape of the student that was chosen; None: the best trial so far.
    """
    if not facts.scored:
        return None
    chosen = _chosen(facts, winner)
    named = {chosen.number: (chosen, f"{_of(winner)} (trial {chosen.number})")} if chosen else {}
    for trial in facts.scored:
        if trial.origin == UNIFORM:
            named.setdefault(trial.number, (trial, UNIFORM))
    others = [trial for trial in facts.scored if trial.number not in named]
    figure, axes = new_figure()
    for trial in others[:MOST_CURVES]:
        points = trial.curve
        dashes = ":" if trial.stopped else "-"
        x, y = [p.tokens for p in points], [p.kl for p in points]
        axes.plot(x, y, color=GREY, linestyle=dashes, linewidth=1)
        axes.plot(x[-1], y[-1], "x" if trial.stopped else "o", color=GREY, markersize=4)
    labels = []
    for number, (trial, label) in named.items():
        look = look_of(WINNER if chosen and number == chosen.number else UNIFORM)
        points = trial.curve
        _draw(axes, points, look, size=5, width=2)
        labels.append((points[-1].tokens, points[-1].kl, label, look.colour))
    _finish(axes)
    label_ends(axes, labels, gap=GAP)
    drawn = [*(trial for trial, _ in named.values()), *others]
    return Plot(
        "trial-curves",
        "Learning curves of the trials",
        _trials_sentence(facts, chosen, left_out=max(0, len(others) - MOST_CURVES)),
        figure,
        _data([(f"trial {t.number}", t.curve) for t in sorted(drawn, key=lambda t: t.number)]),
    )


def _chosen(facts: StudyFacts, winner: Architecture | None) -> TrialFacts | None:
    if winner is None:
        return facts.best
    return next((trial for trial in facts.scored if trial.architecture == winner), None)


def _of(winner: Architecture | None) -> str:
    return "best so far" if winner is None else "winner"


def _trials_sentence(facts: StudyFacts, chosen: TrialFacts | None, *, left_out: int) -> str:
    stopped = sum(trial.stopped for trial in facts.scored)
    text = (
        f"Selection KL of {len(facts.scored)} trials by tokens trained on; {stopped} were stopped "
        "early (dotted, ending in a cross)."
    )
    if chosen is not None and chosen.last is not None:
        text += (
            f" Trial {chosen.number}, {chosen.architecture}, came from {chosen.curve[0].kl:.4f} to "
            f"{chosen.last.kl:.4f} after {chosen.last.tokens:,} tokens."
        )
    return text + (f" The curves of {left_out} more trials are in the CSV." if left_out else "")


def full_curves_plot(results: Results | None) -> Plot | None:
    """Selection KL of the full runs, of the first seed each."""
    students = distinct_students(results) if results else []
    curves = [(name, student.curve) for name, student in students if student.curve]
    if not curves:
        return None
    figure, axes = new_figure()
    labels = []
    for name, points in curves:
        look = look_of(name)
        _draw(axes, points, look, size=6, width=2.2 if look.colour == ACCENT else 1.4)
        labels.append((points[-1].tokens, points[-1].kl, name, look.colour))
    _finish(axes)
    label_ends(axes, labels, gap=GAP)
    ends = ", ".join(f"{name} {points[-1].kl:.4f}" for name, points in curves)
    return Plot(
        "full-curves",
        "Full distillation",
        f"Selection KL of the full runs by tokens trained on, of one seed each; at their ends: "
        f"{ends}.",
        figure,
        _data(curves),
    )


def _draw(
    axes: Axes, points: Sequence[CurvePoint], look: Look, *, size: float, width: float
) -> None:
    """One curve, by its look; size of its markers and width of its line in points."""
    axes.plot(
        [p.tokens for p in points],
        [p.kl for p in points],
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markersize=size,
        linewidth=width,
    )


def _finish(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    logarithmic(axes)
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("selection KL, nats per token")


def _data(curves: Sequence[tuple[str, Sequence[CurvePoint]]]) -> pd.DataFrame:
    rows = [{"run": name, **point.to_dict()} for name, points in curves for point in points]
    return pd.DataFrame(rows)
