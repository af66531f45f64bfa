"""The table and the plot of `prune_quality.py`, from its rows."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

TITLES = {
    "width": "Width cut, by the score of heads, neurons and channels",
    "depth": "Depth cut, by the score of layers",
    "both": "Depth and width cut: layers scored on the teacher, or on the width-cut student",
    "peer": "Multi-head sibling: beside torch-pruning at equal shape",
}


def report(rows: Path, output: Path) -> None:
    """Write prune_quality.md and prune_quality.html to `output`, and print the table."""
    table = pd.read_json(rows, lines=True)
    text = "\n\n".join(
        f"### {title}\n\n{_markdown(table[table.group == group])}"
        for group, title in TITLES.items()
        if (table.group == group).any()
    )
    (output / "prune_quality.md").write_text(text + "\n")
    _plot(table[table.group == "width"]).write_html(
        output / "prune_quality.html", include_plotlyjs=True
    )
    print(text)
    print(f"table and plot in {output}")


def _markdown(rows: pd.DataFrame) -> str:
    """Per method and size: KL before, and KL after with the standard deviation over seeds."""
    shares = sorted(rows.share.unique(), reverse=True)
    shapes = {s: "/".join(sorted(rows[rows.share == s].architecture.unique())) for s in shares}
    grouped = rows.groupby(["method", "share"])
    mean, spread = grouped.mean(numeric_only=True), grouped.std(numeric_only=True)
    after = mean.kl_after.unstack()
    lines = [
        "| score | " + " | ".join(f"{s:.0%} ({shapes[s]})" for s in shares) + " |",
        "|---" * (len(shares) + 1) + "|",
    ]
    best = {share: after[share].min() for share in shares}
    for method in after.mean(axis=1).sort_values().index:
        cells = []
        for share in shares:
            value, noise = mean.kl_after[method, share], spread.kl_after[method, share]
            cell = f"{mean.kl_before[method, share]:.2f} → {value:.3f} ± {noise:.3f}"
            cells.append(f"**{cell}**" if value == best[share] else cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plot(rows: pd.DataFrame) -> go.Figure:
    """KL after the distillation with its spread over seeds, one panel per size."""
    shares = sorted(rows.share.unique(), reverse=True)
    titles = [f"{share:.0%} of the parameters" for share in shares]
    figure = make_subplots(1, len(shares), subplot_titles=titles)
    for column, share in enumerate(shares, start=1):
        chosen = rows[rows.share == share].groupby("method").mean(numeric_only=True)
        spread = rows[rows.share == share].groupby("method").kl_after.std()
        chosen = chosen.sort_values("kl_after", ascending=False)
        figure.add_scatter(
            y=list(chosen.index),
            x=list(chosen.kl_after),
            error_x={"array": list(spread.loc[chosen.index])},
            mode="markers",
            marker={"size": 8, "color": "#1f77b4"},
            row=1,
            col=column,
        )
    figure.update_layout(
        template="plotly_white",
        showlegend=False,
        width=420 * len(shares),
        height=560,
        title="KL to the teacher after the short distillation (test split; lower is better)",
    )
    return figure
