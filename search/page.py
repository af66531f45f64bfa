"""report.html: one self-contained page with what a study found and what it cost."""

import html
from string import Template
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from search.card import result_rows, shown_interval, shown_shape
from search.fidelity import HEADER as FIDELITY_HEADER
from search.fidelity import MINIMUM
from search.ledger import HEADER as LEDGER_HEADER
from search.ledger import table_rows
from search.winner_costs import cost_lines

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em;
  color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border-bottom: 1px solid #ddd; padding: 4px 12px 4px 0; text-align: left; }
td + td { font-variant-numeric: tabular-nums; }
.verdict { background: #f2f6f2; border-left: 4px solid #4a7c59;
  padding: 0.6em 1em; margin: 0.4em 0; }
</style></head><body>
<h1>$title</h1>
$verdicts
<h2>Winners against teacher and baselines</h2>
<p>Test split, read once, on checkpoints loaded again; nats per token, 95 % intervals over sequences
and, where several ran, training seeds.</p>
$table
$short
$size
<h2>Learning curves of all trials</h2>
$curves
<h2>Full distillation</h2>
$full
$front
$tasks
<h2>What serves it</h2>
$engines
<h2>What the scores predict</h2>
$fidelity
<h2>Cost</h2>
$cost
</body></html>
""")

LIKELIEST = 5
"""Candidates whose chance of being the best is shown."""


def render_page(
    results: dict[str, Any], trials: pd.DataFrame, curves: dict[str, dict[str, Any]]
) -> str:
    """The page, with plotly's script inside it."""
    best, teacher = results["winners"][0], results["teacher"]
    header = ["", "parameters", "KL to the teacher", "cross-entropy", "top-1 agreement"]
    return PAGE.substitute(
        title=html.escape(f"{teacher['name']} as {shown_shape(best['architecture'])}"),
        verdicts="".join(f'<p class="verdict">{html.escape(v)}</p>' for v in results["verdicts"]),
        table=_table(header, [[c.lstrip("\\") for c in row] for row in result_rows(results)]),
        short=_short(results["short"]),
        size=_score_against_size(results, trials).to_html(
            full_html=False, include_plotlyjs=True, div_id="size"
        ),
        curves=_embedded(_trial_curves(curves["trials"]), "curves"),
        full=_embedded(_full_curves(curves["full"]), "full"),
        front=_front(results["front"]),
        tasks=_tasks(results["tasks"]),
        engines=_engines(results["engines"]),
        fidelity=_fidelity(results),
        cost=_cost(results),
    )


def _short(found: dict[str, Any]) -> str:
    """Baselines that were not distilled in full, beside the winner's architecture."""
    if len(found["selection_kl"]) < 2:
        return ""
    rows = [
        [name, *(shown_interval(each).removesuffix(" *") if each else "" for each in pair)]
        for name, kl in found["selection_kl"].items()
        for pair in [(kl, found["differences"].get(name))]
    ]
    head = f"KL to the teacher after {found['tokens']:,} tokens"
    said = (
        "<h2>Short runs against baselines</h2><p>Selection split, by which the winner was chosen, "
        "one seed; nats per token, 95 % intervals over sequences, differences paired (winner minus "
        "the other).</p>"
    )
    return said + _table(["", head, "difference"], rows)


def _embedded(figure: go.Figure, name: str) -> str:
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name)
    return text


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _score_against_size(results: dict[str, Any], trials: pd.DataFrame) -> go.Figure:
    """Every scored trial after its short run, and the full runs on the test split."""
    figure = go.Figure()
    for state, label, symbol in (
        ("COMPLETE", "trial, short run (selection)", "circle"),
        ("PRUNED", "trial, stopped early (selection)", "x"),
    ):
        rows = trials[trials.state == state]
        text = [
            f"trial {r.number}: L{r.layers} H{r.hidden} A{r.heads} F{r.ffn}"
            for r in rows.itertuples()
        ]
        marker = {"symbol": symbol, "size": 8, "opacity": 0.6}
        figure.add_scatter(
            x=rows.parameters, y=rows.kl, mode="markers", name=label, text=text, marker=marker
        )
    named = [
        ("winner" if i == 0 else f"candidate {i + 1}", w) for i, w in enumerate(results["winners"])
    ]
    for name, student in [*named, *results["baselines"].items()]:
        kl = student["test"]["kl"]
        figure.add_scatter(
            x=[student["parameters"]],
            y=[kl["mean"]],
            error_y={"array": [kl["high"] - kl["mean"]]},
            mode="markers",
            name=f"{name}, full run (test)",
            text=[shown_shape(student["architecture"])],
            marker={"symbol": "diamond", "size": 11},
        )
    return _styled(figure, "parameters", "KL to the teacher, nats per token", log_y=True)


def _trial_curves(curves: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for name, curve in curves.items():
        points = curve["points"]
        dash = "solid" if curve["state"] == "COMPLETE" else "dot"
        figure.add_scatter(
            x=[p["tokens"] for p in points],
            y=[p["kl"] for p in points],
            mode="lines+markers",
            line={"dash": dash},
            name=f"{name} {shown_shape(curve['architecture'])}",
        )
    return _styled(figure, "tokens", "selection KL (dotted: stopped early)", log_y=True)


def _full_curves(curves: dict[str, Any]) -> go.Figure:
    figure = go.Figure()
    for name, points in curves.items():
        figure.add_scatter(
            x=[p["tokens"] for p in points],
            y=[p["kl"] for p in points],
            mode="lines+markers",
            name=name,
        )
    return _styled(figure, "tokens", "selection KL", log_y=True)


def _styled(figure: go.Figure, x: str, y: str, log_y: bool) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        xaxis_title=x,
        yaxis_title=y,
        height=460,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
    )
    if log_y:
        figure.update_yaxes(type="log")
    return figure


def _tasks(tasks: dict[str, Any]) -> str:
    if not tasks:
        return ""
    rows = [
        [task, metric, f"{value:.4f}", f"{tasks['teacher'][task][metric]:.4f}"]
        for task, figures in tasks["winner"].items()
        for metric, value in figures.items()
    ]
    return "<h2>Tasks (lm-eval)</h2>" + _table(["task", "metric", "winner", "teacher"], rows)


def _engines(verdicts: list[dict[str, Any]]) -> str:
    """Which engines take the winner, and what is to be known of it."""
    rows = [[v["version"], "yes" if v["takes"] else "no", v["reason"]] for v in verdicts]
    return _table(["engine", "takes the winner", ""], rows)


def _front(found: dict[str, Any] | None) -> str:
    """Trade-offs of several objectives: the first two against each other, and over time."""
    if found is None:
        return ""
    names = found["objectives"][:2]
    figure = go.Figure()
    points = found["front"]
    figure.add_scatter(
        x=[p["values"][names[1]] for p in points],
        y=[p["values"][names[0]] for p in points],
        mode="lines+markers",
        name="front",
        text=[shown_shape(p["architecture"]) for p in points],
    )
    knee = found["knee"]
    figure.add_scatter(
        x=[knee["values"][names[1]]],
        y=[knee["values"][names[0]]],
        mode="markers",
        marker={"size": 14, "symbol": "star"},
        name=f"knee: {shown_shape(knee['architecture'])}",
    )
    volumes = found["hypervolume"]
    over_time = go.Figure()
    over_time.add_scatter(x=list(range(1, len(volumes) + 1)), y=volumes, mode="lines+markers")
    return (
        "<h2>Trade-offs</h2>"
        + _embedded(_styled(figure, names[1], names[0], log_y=False), "front")
        + _embedded(_styled(over_time, "finished trials", "hypervolume", log_y=False), "volume")
    )


def _fidelity(results: dict[str, Any]) -> str:
    """Rank correlations between what is cheap to measure and what it stands for; and how likely the
    short runs make each candidate the best of them."""
    likely = [f"{shape} {chance:.0%}" for shape, chance in results["chances"].items()][:LIKELIEST]
    said = (
        "<p>Best by the short runs, given their noise (sequences and seeds): "
        f"{html.escape(', '.join(likely))}.</p>"
        if likely
        else ""
    )
    if not results["fidelity_rows"]:
        few = f"<p>Fewer than {MINIMUM} candidates have two of the scores: nothing to say.</p>"
        return said + few
    lines = "".join(
        f'<p class="verdict">{html.escape(w)}</p>' for w in results["fidelity_warnings"]
    )
    return said + lines + _table(FIDELITY_HEADER, results["fidelity_rows"])


def _cost(results: dict[str, Any]) -> str:
    share = results["training_share"]
    used = (
        ""
        if share is None
        else (
            f"<p>{share:.0%} of the slots' time during the trials went into training and "
            "evaluation.</p>"
        )
    )
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in cost_lines(results["costs"]))
    return _table(LEDGER_HEADER, table_rows(results["ledger"])) + used + lines
