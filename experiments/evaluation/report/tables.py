"""Tables of an evaluation: as text for a terminal, as CSV, and the words of their cells."""

import csv
import io
from collections.abc import Sequence

from experiments.evaluation.report.comparison import PARAMETERS, Difference, Figure, Measure

NONE = "-"
BETTER, WORSE, MORE, LESS = "better", "worse", "more", "less"
NOT_TOLD_APART = "not told apart"
MEANINGS = (BETTER, WORSE, MORE, LESS, NOT_TOLD_APART)
"""Words for a difference."""
COLUMNS = (
    "measure",
    "unit",
    "model",
    "value",
    "low",
    "high",
    "difference",
    "difference_standard_error",
    "difference_low",
    "difference_high",
    "pairs",
    "p_value",
    "clear",
)
"""Of evaluation.csv."""


def number(value: float, measure: Measure) -> str:
    """With so many digits as say something."""
    if measure.name == PARAMETERS:
        return f"{value:,.0f}"
    if measure.unit == "GB":
        return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
    if measure.unit == "tokens/s":
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"


def meaning(difference: Difference, measure: Measure) -> str:
    """In a word."""
    if not difference.clear:
        return NOT_TOLD_APART
    if measure.more_is_better is None:
        return MORE if difference.mean > 0 else LESS
    return BETTER if (difference.mean > 0) == measure.more_is_better else WORSE


def title(measure: Measure) -> str:
    """The measure with its unit."""
    return f"{measure.name} ({measure.unit})" if measure.unit else measure.name


def summaries(measures: Sequence[Measure], labels: Sequence[str]) -> list[str]:
    """A sentence for every model that is compared: its size, and in what it is better or worse."""
    first, *others = labels
    sizes = next(measure.figures for measure in measures if measure.name == PARAMETERS)
    lines = []
    for label in others:
        found: dict[str, list[str]] = {}
        for measure in measures:
            figure = measure.figures.get(label)
            if figure is not None and figure.difference is not None:
                found.setdefault(meaning(figure.difference, measure), []).append(measure.name)
        share = sizes[label].value / sizes[first].value
        parts = [f"{word} in {', '.join(found[word])}" for word in MEANINGS if word in found]
        lines.append(
            f"{label} has {share:.1%} of the parameters of {first}"
            + (f"; {'; '.join(parts)}." if parts else ".")
        )
    return lines


def text_table(measures: Sequence[Measure], labels: Sequence[str]) -> list[str]:
    """Lines of a table with a column per model; differences from the reference, mean ± standard
    error, stand below the values that they are of."""
    lines = [["", *labels]]
    for measure in measures:
        figures = [measure.figures.get(label) for label in labels]
        lines.append([title(measure), *(_value(figure, measure) for figure in figures)])
        if any(figure is not None and figure.difference is not None for figure in figures):
            lines.append(["  difference", *(_difference(figure, measure) for figure in figures)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(labels) + 1)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _value(figure: Figure | None, measure: Measure) -> str:
    return NONE if figure is None else number(figure.value, measure)


def _difference(figure: Figure | None, measure: Measure) -> str:
    if figure is None or figure.difference is None:
        return NONE
    apart = figure.difference
    return f"{apart.mean:+.4f} ± {apart.standard_error:.4f} {meaning(apart, measure)}"


def csv_table(measures: Sequence[Measure]) -> str:
    """A line per measure and model."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for measure in measures:
        for label, figure in measure.figures.items():
            apart = figure.difference
            known = (
                [""] * 7
                if apart is None
                else [
                    apart.mean,
                    apart.standard_error,
                    apart.low,
                    apart.high,
                    apart.pairs,
                    apart.chance,
                    str(apart.clear).lower(),
                ]
            )
            own = [figure.value, *("" if end is None else end for end in (figure.low, figure.high))]
            writer.writerow([measure.name, measure.unit, label, *own, *known])
    return text.getvalue()
