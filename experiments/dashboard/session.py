"""Serve the page of the studies in a database until Ctrl-C."""

import logging
import threading

import optuna

from common.errors import Interrupted
from common.log import plain_lines
from common.signals import interruptible
from experiments.dashboard.config import DashboardCommand
from search.config import LOCALHOST
from search.dashboards import address, free_port, optuna_page
from search.database import open_storage, shown, take_storage_url
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


@plain_lines()
def run_dashboard(command: DashboardCommand) -> None:
    """Serve until Ctrl-C or SIGTERM, which is the way to end it.

    Raises SearchError for a database that is not there or holds no study, and for a port that is
    taken.
    """
    workspace = Workspace(command.workspace.expanduser().absolute())
    url = take_storage_url(command.storage, workspace.root)
    port = free_port(command.host, command.port, option="--port")
    storage = open_storage(url, existing=True)
    names = optuna.get_all_study_names(storage)
    page = address(command.host, port)
    with optuna_page(storage, command.host, port=port, artifacts=workspace.artifacts):
        LOGGER.info(f"{shown(url)}: {_listed(names)}")
        if command.host != LOCALHOST:
            LOGGER.info(
                f"warning: whoever reaches {command.host} can read the studies: the page asks for "
                "no password"
            )
        LOGGER.info(f"optuna-dashboard: {page}/dashboard (Ctrl-C ends it)")
        try:
            with interruptible():
                threading.Event().wait()
        except Interrupted:
            LOGGER.info("closed; the studies go on as they were")


def _listed(names: list[str]) -> str:
    """Studies by name, as many as a line holds."""
    first = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} {'study' if len(names) == 1 else 'studies'} ({first}{more})"
