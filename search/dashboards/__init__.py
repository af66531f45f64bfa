"""Dashboards and trackers: how others see a study while it runs, and after it."""

from search.dashboards.ports import address, free_port
from search.dashboards.server import optuna_page

__all__ = [
    "address",
    "free_port",
    "optuna_page",
]
