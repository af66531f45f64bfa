"""The table and the plot of `distill_quality.py`, from its rows."""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

TITLES = {
    "loss": "Loss, schedule and average",
    "targets": "What is stored of the teacher",
    "states": "Intermediate states",
    "warm start": "Block-wise warm start, at equal tokens",
    "correction": "Teacher correction, on text that the teacher was not trained on",
}
REFERENCES = {
    "loss": "forward KL, top 64",
    "targets": "whole distribution",
    "states": "logits alone",
    "warm start": "none",
    "correction": "teacher as it is",
}
"""What the others of a group are held against."""


def report(rows: Path, output: Path) -> None:
    """Write distill_quality.md and distill_quality.html to `output`, and print the table."""
    table = pd.read_json(rows, lines=True)
    base = table[(table.group == "loss") & (table.name == REFERENCES["loss"])]
    table = pd.concat([table, base.assign(group="targets", name="top 64 and the rest")])
    compared = {group: compare(table[table.group == group], group) for group in TITLES}
    text = "\n\n".join(
        f"### {title}\n\n{_markdown(compared[group])}" for group, title in TITLES.items()
    )
    (output / "distill_quality.md").write_text(text + "\n")
    _plot(compared).write_html(output / "distill_quality.html", include_plotlyjs=True)
    print(text)
    print(f"table and plot in {output}")
    found = {group: rows.to_dict("records") for group, rows in compared.items()}
    print(json.dumps({"benchmark": "distill_quality", **found}))


def compare(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """Per student and arm: means, and the difference to the reference, paired by seed.

    Of the KL, or of the cross-entropy where the teachers differ; in per cent, with half the width
    of its 95 % interval (Student's t over seeds).
    """
    metric = "ce" if group == "correction" else "kl"
    found = []
    for student, same in rows.groupby("student", sort=False):
        values = same.pivot_table(index="name", columns="seed", values=metric, sort=False)
        reference = values.loc[REFERENCES[group]]
        for name, by_seed in values.iterrows():
            change = (by_seed / reference - 1) * 100
            width = stats.t.ppf(0.975, max(1, len(change) - 1)) * change.sem()
            means = same[same.name == name]
            found.append(
                {
                    "student": student,
                    "name": name,
                    "kl": float(means.kl.mean()),
                    "ce": float(means.ce.mean()),
                    "top1_agreement": float(means.top1_agreement.mean()),
                    "metric": metric,
                    "change": float(change.mean()),
                    "width": float(width),
                    "seeds": len(change),
                }
            )
    return pd.DataFrame(found)


def _markdown(rows: pd.DataFrame) -> str:
    metric = "cross-entropy" if rows.metric.iloc[0] == "ce" else "KL"
    lines = [
        f"| student | | test KL | test cross-entropy | top-1 agreement | {metric}, against the "
        "reference |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.sort_values(["student", "change"], kind="stable").itertuples():
        change = f"{row.change:+.1f} ± {row.width:.1f} %" if row.change else "reference"
        lines.append(
            f"| {row.student} | {row.name} | {row.kl:.4f} | {row.ce:.4f} | "
            f"{row.top1_agreement:.3f} | {change} |"
        )
    return "\n".join(lines)


def _plot(compared: dict[str, pd.DataFrame]) -> go.Figure:
    """Change against the reference with its 95 % interval, one panel per group."""
    figure = make_subplots(
        len(compared),
        1,
        subplot_titles=[TITLES[group] for group in compared],
        row_heights=[len(rows) + 1 for rows in compared.values()],
        vertical_spacing=0.06,
    )
    for index, (group, rows) in enumerate(compared.items(), start=1):
        shown = rows.sort_values(["student", "change"], ascending=False)
        several = shown.student.nunique() > 1
        labels = shown.student + ": " + shown.name if several else shown.name
        figure.add_scatter(
            x=list(shown.change),
            y=list(labels),
            error_x={"array": list(shown.width)},
            mode="markers",
            marker={"size": 8, "color": "#1f77b4"},
            row=index,
            col=1,
        )
        figure.add_vline(x=0, line_color="#999", row=index, col=1)
        metric = "cross-entropy" if group == "correction" else "KL"
        figure.update_xaxes(title=f"test {metric}, % against {REFERENCES[group]}", row=index, col=1)
    figure.update_layout(
        template="plotly_white", showlegend=False, width=900, height=1500, margin={"l": 320}
    )
    return figure
