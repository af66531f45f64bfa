"""Model cards of the students that a search, run_prune and run_distill make."""

from search.results.cards.model_card import Origin, hub_id, shown_name
from search.results.cards.students import (
    bounds,
    result_rows,
    shown_interval,
    write_card,
    write_copy_card,
    write_cut_card,
    write_distilled_card,
)

__all__ = [
    "Origin",
    "bounds",
    "hub_id",
    "result_rows",
    "shown_interval",
    "shown_name",
    "write_card",
    "write_copy_card",
    "write_cut_card",
    "write_distilled_card",
]
