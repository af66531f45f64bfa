"""The plots of report.html."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from distill.recipes import CurvePoint
from pruning import Block
from search.results.results import Front, Results, named_students

IDS = {
    "size": "size",
    "trials": "curves",
    "full": "full",
    "front": "front",
    "volume": "volume",
    "layers": "layers",
}
"""Name of a plot -> its id in the page."""


@dataclass(frozen=True)
class LearningCurve:
    """Evaluations of a run on the selection split."""

    name: str
    """In the legend."""
    points: Sequence[CurvePoint]
    """In the order of their tokens; KL in nats per token."""
    stopped: bool = False
    """Whether the run was stopped early."""


@dataclass(frozen=True)
class LearningCurves:
    """All runs of a study."""

    trials: list[LearningCurve]
    """Short runs."""
    full: list[LearningCurve]
    """Full runs of winners and baselines."""


def plots(results: Results, trials: pd.DataFrame, *, curves: LearningCurves) -> dict[str, str]:
    """By name, as HTML; the first has plotly's script inside it."""
    dotted = "selection KL (dotted: stopped early)"
    drawn = {
        "size": _score_against_size(results, trials),
        "trials": _learning_curves(curves.trials, dotted),
        "full": _learning_curves(curves.full, "selection KL"),
    }
    if results.per_layer is not None:
        drawn["layers"] = _sizes_by_layer(results)
    if results.front is not None:
        drawn |= {"front": _front(results.front), "volume": _volume(results.front)}
    return {
        name: figure.to_html(full_html=False, include_plotlyjs=name == "size", div_id=IDS[name])
        for name, figure in drawn.items()
    }


def _score_against_size(results: Results, trials: pd.DataFrame) -> go.Figure:
    """Every scored trial after its short run, and the full runs on the test split."""
    figure = go.Figure()
    for state, label, symbol in (
        ("COMPLETE", "trial, short run (selection)", "circle"),
        ("PRUNED", "trial, stopped early (selection)", "x"),
    ):
        rows = trials[trials.state == state]
        text = [
            f"trial {r.number}: L{r.layers} H{r.hidden} {_layers(r)}" for r in rows.itertuples()
        ]
        marker = {"symbol": symbol, "size": 8, "opacity": 0.6}
        figure.add_scatter(
            x=rows.parameters, y=rows.kl, mode="markers", name=label, text=text, marker=marker
        )
    for name, student in named_students(results):
        kl = student.test.kl
        figure.add_scatter(
            x=[student.parameters],
            y=[kl.mean],
            error_y={"array": [kl.high - kl.mean]},
            mode="markers",
            name=f"{name}, full run (test)",
            text=[str(student.architecture)],
            marker={"symbol": "diamond", "size": 11},
        )
    return _styled(figure, x="parameters", y="KL to the teacher, nats per token").update_yaxes(
        type="log"
    )


def _layers(row: Any) -> str:
    """The sizes of the layers of a row of trials.csv, each in a per-layer architecture."""
    blocks = getattr(row, "blocks", None)
    return blocks if isinstance(blocks, str) else f"A{row.heads} F{row.ffn}"


def _learning_curves(curves: Sequence[LearningCurve], title: str) -> go.Figure:
    figure = go.Figure()
    for curve in curves:
        figure.add_scatter(
            x=[point.tokens for point in curve.points],
            y=[point.kl for point in curve.points],
            mode="lines+markers",
            line={"dash": "dot" if curve.stopped else "solid"},
            name=curve.name,
        )
    return _styled(figure, x="tokens", y=title).update_yaxes(type="log")


def _sizes_by_layer(results: Results) -> go.Figure:
    """Shares of the teacher's heads and neurons in each layer of the first winner of each kind."""
    whole, figure = results.teacher.architecture, go.Figure()
    shapes = [winner.architecture for winner in results.winners]
    for shape in {shape.per_layer: shape for shape in reversed(shapes)}.values():
        kind = "layers differ" if shape.per_layer else "layers alike"
        blocks = [shape.block(index) for index in range(shape.layers)]
        for part, of in (
            ("heads", [block.heads / whole.heads for block in blocks]),
            ("FFN", [_ffn(block) / _ffn(whole.block(0)) for block in blocks]),
        ):
            figure.add_bar(y=of, name=f"{part}, {kind}", hovertext=str(shape))
    return _styled(figure, x="layer of the student", y="share of the teacher's")


def _ffn(block: Block) -> int:
    """Neurons, its own or those of its experts."""
    return block.ffn + block.experts * block.expert_ffn


def _front(front: Front) -> go.Figure:
    """The first two objectives against each other."""
    first, second = front.objectives[:2]
    figure = go.Figure()
    figure.add_scatter(
        x=[point.values[second] for point in front.front],
        y=[point.values[first] for point in front.front],
        mode="lines+markers",
        name="front",
        text=[str(point.architecture) for point in front.front],
    )
    figure.add_scatter(
        x=[front.knee.values[second]],
        y=[front.knee.values[first]],
        mode="markers",
        marker={"size": 14, "symbol": "star"},
        name=f"knee: {front.knee.architecture}",
    )
    return _styled(figure, x=second, y=first)


def _volume(front: Front) -> go.Figure:
    """The front's hypervolume over time."""
    figure = go.Figure()
    trials = list(range(1, len(front.hypervolume) + 1))
    figure.add_scatter(x=trials, y=front.hypervolume, mode="lines+markers")
    return _styled(figure, x="finished trials", y="hypervolume")


def _styled(figure: go.Figure, *, x: str, y: str) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        xaxis_title=x,
        yaxis_title=y,
        height=460,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
    )
