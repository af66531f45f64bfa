"""What the replays say: regret after a share of the table's tokens, and tokens to a regret."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from experiments.benchmarks.search.replays.simulation import SCORING_TOKENS, Step, Table
from experiments.benchmarks.search.replays.strategies import RANDOM, Strategy
from search.statistics import CandidateScores, rank_correlations

SHARES = (32, 16, 8)
"""Regret is read after one part in so many of the table's tokens."""
WANTED = 0.02
"""Regret that a search should come to."""
EASIER = 0.05
PLOTTED = (
    RANDOM.name,
    "largest parameter count first",
    "best zero-shot first, all scored",
    "random, halving 2, from 1/8",
    "tpe, no stopping",
    "tpe, halving 2, from 1/8",
    "surrogate, no stopping",
    "surrogate, halving 2, from 1/8",
)

Replays = Mapping[Strategy, Sequence[Sequence[Step]]]


@dataclass(frozen=True)
class Summary:
    """One strategy over all seeds; tokens as shares of the table's, None where not reached."""

    name: str
    regret: list[list[float | None]]
    """Per share of SHARES: median, 20th and 80th percentile; None before the first choice."""
    near: list[float]
    """Share of seeds within WANTED of the best, per share of SHARES."""
    within_noise: float
    """Share of seeds within WANTED, or one standard deviation between runs if that is more, after
    1/8 of the tokens."""
    to_wanted: float | None
    """Median tokens to a regret of WANTED."""
    to_easier: float | None
    """Median tokens to a regret of EASIER."""
    ratio_wanted: float | None
    """Of random search's tokens to WANTED to these; above 1 is sooner."""
    ratio_easier: float | None


def regret_after(steps: Sequence[Step], tokens: float) -> float:
    """Of the choice at that time; infinite before the first."""
    return next((step.regret for step in reversed(steps) if step.spent <= tokens), np.inf)


def tokens_to(steps: Sequence[Step], regret: float) -> float:
    """Tokens after which the choice first had at most this regret; infinite where it never had."""
    return next((step.spent for step in steps if step.regret <= regret), np.inf)


def summarise(
    table: Table, strategy: Strategy, replays: Sequence[Sequence[Step]], random: list[float]
) -> Summary:
    """`random`: median share of the tokens that random search takes to WANTED and to EASIER."""
    total = table.training_tokens
    regrets = [[regret_after(steps, total / part) for steps in replays] for part in SHARES]
    eighth = np.array(regrets[SHARES.index(8)])
    noise = max(WANTED, table.noise) if np.isfinite(table.noise) else WANTED
    medians = median_shares(table, replays)
    return Summary(
        name=strategy.name,
        regret=[[_finite(_quantile(row, q)) for q in (0.5, 0.2, 0.8)] for row in regrets],
        near=[float((np.array(row) <= WANTED).mean()) for row in regrets],
        within_noise=float((eighth <= noise).mean()),
        to_wanted=_finite(medians[0]),
        to_easier=_finite(medians[1]),
        ratio_wanted=_finite(random[0] / medians[0]) if np.isfinite(medians[0]) else None,
        ratio_easier=_finite(random[1] / medians[1]) if np.isfinite(medians[1]) else None,
    )


def median_shares(table: Table, replays: Sequence[Sequence[Step]]) -> list[float]:
    """Median share of the table's tokens to a regret of WANTED, and of EASIER."""
    return [
        _quantile([tokens_to(steps, goal) for steps in replays], 0.5) / table.training_tokens
        for goal in (WANTED, EASIER)
    ]


def _quantile(values: Sequence[float], share: float) -> float:
    """The nearest value above, so that infinite ones are never averaged."""
    return float(np.quantile(values, share, method="higher"))


def _finite(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def report(table: Table, replays: Replays, plot: Path) -> dict[str, Any]:
    """Print the tables, write the plot, and return what goes into the line of JSON."""
    random = median_shares(table, replays[RANDOM])
    summaries = [summarise(table, s, found, random) for s, found in replays.items()]
    seeds = max(len(kl) for kl in table.kl.values())
    noise = f"{table.noise:.2%}" if np.isfinite(table.noise) else "unknown (one seed)"
    tokens = table.training_tokens
    print(
        f"{len(table.kl)} of {len(table.space.feasible)} architectures, at most {seeds} training "
        f"seeds each; noise of a final KL between seeds {noise}; {tokens:,} training tokens a "
        f"seed; a zero-shot score counts as {SCORING_TOKENS:,.0f} of them\n"
    )
    print(markdown(summaries))
    print("\n" + fidelity_markdown(table))
    draw(table, replays, plot)
    return {
        "architectures": len(table.kl),
        "training_tokens": tokens,
        "noise": _finite(table.noise),
        "replays": max((len(found) for found in replays.values()), default=0),
        "strategies": [asdict(summary) for summary in summaries],
    }


def markdown(summaries: Sequence[Summary]) -> str:
    """A row per strategy: regret median (20th to 80th percentile) per share, and tokens."""
    parts = " | ".join(f"regret at 1/{part}, %" for part in SHARES)
    lines = [
        f"| strategy | {parts} | seeds within {WANTED:.0%} at the same | tokens to {WANTED:.0%} | "
        f"tokens to {EASIER:.0%} | random takes |",
        "|---" * (len(SHARES) + 5) + "|",
    ]
    for s in summaries:
        cells = [_regret_cell(row) for row in s.regret]
        near = " / ".join(f"{share:.0%}" for share in s.near)
        if s.within_noise > s.near[-1]:
            near += f" ({s.within_noise:.0%})"
        ratios = " / ".join(
            "-" if r is None else f"{r:.1f}x" for r in (s.ratio_wanted, s.ratio_easier)
        )
        reached = ["-" if t is None else f"{t:.3f}" for t in (s.to_wanted, s.to_easier)]
        lines.append("| " + " | ".join([s.name, *cells, near, *reached, ratios]) + " |")
    return "\n".join(lines)


def _regret_cell(row: Sequence[float | None]) -> str:
    median, low, high = ("-" if value is None else f"{value:.1%}"[:-1] for value in row)
    return f"{median} ({low} to {high})"


def fidelity_markdown(table: Table) -> str:
    """How what is known before the end ranks the architectures; lower KL and more parameters are
    better."""
    candidates = [
        CandidateScores(
            parameters=table.space.parameters_of[shape],
            curve=tuple(zip(table.tokens[1:-1], kl[0, 1:-1].tolist(), strict=True)),
            zero_shot=float(kl[0, 0]),
            short=table.truth[shape],
        )
        for shape, kl in table.kl.items()
    ]
    lines = ["| rank fidelity to the final KL | Spearman | Kendall |", "|---|---|---|"]
    lines += [
        f"| {pair.predictor} | {pair.spearman} | {pair.kendall} |"
        for pair in rank_correlations(candidates, table.tokens[1:-1])
        if pair.outcome == "short score"
    ]
    return "\n".join(lines)


def draw(table: Table, replays: Replays, plot: Path) -> None:
    """Median regret against tokens, as a PNG where Chromium is installed, else as a page."""
    figure = go.Figure()
    grid = np.geomspace(1 / 256, 1, 200)
    for strategy, found in replays.items():
        if strategy.name not in PLOTTED:
            continue
        shares = grid[grid <= strategy.limit]
        medians = [
            _quantile([regret_after(steps, s * table.training_tokens) for steps in found], 0.5)
            for s in shares
        ]
        figure.add_scatter(
            x=shares,
            y=[max(m, 1e-3) if np.isfinite(m) else None for m in medians],
            name=strategy.name,
            mode="lines",
            line={"shape": "hv", "dash": "dot" if "no stopping" in strategy.name else "solid"},
        )
    figure.add_hline(y=WANTED, line={"color": "grey", "width": 1, "dash": "dash"})
    figure.add_vline(x=1 / 8, line={"color": "grey", "width": 1, "dash": "dash"})
    figure.update_layout(
        template="plotly_white",
        width=900,
        height=520,
        title="Median regret of the search's choice (at most 0.1 % is drawn as 0.1 %)",
        xaxis={
            "title": "tokens, as a share of training every architecture",
            "type": "log",
            "tickvals": [1 / part for part in (256, 128, 64, *SHARES, 2, 1)],
            "ticktext": [f"1/{part}" for part in (256, 128, 64, *SHARES, 2)] + ["1"],
        },
        yaxis={
            "title": "KL above the table's best",
            "type": "log",
            "tickvals": [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
            "tickformat": ".1%",
        },
    )
    write_picture(figure, plot)


def write_picture(figure: go.Figure, plot: Path) -> None:
    """Write the PNG `plot` where Chromium is installed, else a page beside it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        figure.write_html(plot.with_suffix(".html"), include_plotlyjs=True)
        print(f"\nplot in {plot.with_suffix('.html')} (no Chromium to draw {plot.name} with)")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "plot.html"
        figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        options += ["--virtual-time-budget=5000", f"--user-data-dir={folder}/profile"]
        options += [f"--window-size={figure.layout.width + 16},{figure.layout.height + 16}"]
        command = [browser, *options, f"--screenshot={plot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"\nplot in {plot}")
