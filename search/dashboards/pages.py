"""The dashboards of a search as its settings have them."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import optuna

from search.cluster.ray_page import RayPage
from search.config.shown import LOCALHOST
from search.config.study import SearchConfig
from search.dashboards.audience import facts_of
from search.dashboards.ports import address, free_port
from search.dashboards.server import optuna_page
from search.database.optuna_internals import study_id
from search.database.storage import PatientStorage

LOGGER = logging.getLogger(__name__)
OPTUNA_PORT = "--pages.optuna_port"


def check_ports(config: SearchConfig) -> None:
    """Raises SearchError, before any work, for a port that the dashboards cannot have."""
    if not config.dashboard:
        return
    where = config.pages
    free_port(where.host, where.optuna_port, option=OPTUNA_PORT)
    ray_page(config)


@contextlib.contextmanager
def study_page(
    config: SearchConfig, storage: PatientStorage, study: optuna.Study, *, artifacts: Path
) -> Iterator[None]:
    """optuna-dashboard on the study, where the settings ask for dashboards."""
    if not config.dashboard:
        yield
        return
    where = config.pages
    port = free_port(where.host, where.optuna_port, option=OPTUNA_PORT)
    with optuna_page(storage, where.host, port=port, artifacts=artifacts):
        url = address(where.host, port)
        LOGGER.info(f"optuna-dashboard: {url}/dashboard/studies/{study_id(study)}")
        if where.host != LOCALHOST:
            LOGGER.info(
                f"warning: whoever reaches {where.host} can read the study there: optuna-dashboard "
                "asks for no password"
            )
        yield


def ray_page(config: SearchConfig) -> RayPage | None:
    """Ray's dashboard, where the settings ask for dashboards; on a cluster it is where it is.

    Raises SearchError for a port that is taken.
    """
    if not config.dashboard:
        return None
    where, facts = config.pages, facts_of(config)
    if config.address is not None:
        return RayPage(where.host, where.ray_port, where.metrics_port, facts)
    return RayPage(
        where.host,
        free_port(where.host, where.ray_port, option="--pages.ray_port"),
        free_port(where.host, where.metrics_port, option="--pages.metrics_port"),
        facts,
    )
