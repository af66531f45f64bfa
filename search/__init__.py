"""Search for the best smaller architecture of a language model inside a budget.

from search import SearchConfig, run_search
"""

import os
from typing import Any

# Ray reads these when it is imported: every line of a trial is worth showing, plainly.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_COLOR_PREFIX", "0")

__all__ = ["BudgetConfig", "SearchConfig", "SearchError", "run_search"]


def __getattr__(name: str) -> Any:
    """Import on first use: workers import this package and need neither Optuna nor plotly."""
    if name == "run_search":
        from search.run.study import run_search

        return run_search
    if name in ("SearchConfig", "BudgetConfig"):
        from search.config import study as config

        return getattr(config, name)
    if name == "SearchError":
        from common.errors import SearchError

        return SearchError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
