"""report.html: one self-contained page with a study's results and its cost."""

import pandas as pd

from search.results.cards import bounds, result_rows
from search.results.costs import cost_lines
from search.results.ledger import HEADER as LEDGER_HEADER
from search.results.ledger import table_rows
from search.results.per_layer import (
    BLOCKS_HEADER,
    COMBINATIONS_HEADER,
    LAYERS_HEADER,
    block_rows,
    combination_rows,
    correlation_lines,
    layer_rows,
)
from search.results.plots import LearningCurves, plots
from search.results.rendering import rendered
from search.results.results import Results
from search.statistics.rank_correlation import HEADER as CORRELATION_HEADER
from search.statistics.rank_correlation import MINIMUM

LIKELIEST = 5
"""Candidates whose chance of being the best is shown."""


def render_page(results: Results, trials: pd.DataFrame, *, curves: LearningCurves) -> str:
    """The page, with plotly's script inside it.

    Args:
        results: Of the study.
        trials: The table in trials.csv.
        curves: Of trials and full runs.
    """
    chances = [f"{shape} {chance:.0%}" for shape, chance in results.chances.items()]
    return rendered(
        "report.html.jinja",
        results=results,
        rows=result_rows(results),
        bounds=bounds,
        plots=plots(results, trials, curves=curves),
        likeliest=chances[:LIKELIEST],
        correlation_header=CORRELATION_HEADER,
        minimum=MINIMUM,
        layers_header=LAYERS_HEADER,
        layer_rows=layer_rows,
        correlation_lines=correlation_lines,
        combinations_header=COMBINATIONS_HEADER,
        combination_rows=combination_rows,
        blocks_header=BLOCKS_HEADER,
        block_rows=block_rows,
        ledger_header=LEDGER_HEADER,
        ledger_rows=table_rows(results.ledger),
        cost_lines=cost_lines(results.costs),
    )
