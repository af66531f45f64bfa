"""Results of a study as typed values, and how they are shown: cards, page, ledger."""

from search.results.cards import (
    Origin,
    shown_name,
    write_copy_card,
    write_cut_card,
    write_distilled_card,
)
from search.results.ledger import TOTAL, TRIALS, Cost, RunCosts
from search.results.results import Results, StudentResult
from search.results.results_file import from_json, read_results

__all__ = [
    "TOTAL",
    "TRIALS",
    "Cost",
    "Origin",
    "Results",
    "RunCosts",
    "StudentResult",
    "from_json",
    "read_results",
    "shown_name",
    "write_copy_card",
    "write_cut_card",
    "write_distilled_card",
]
