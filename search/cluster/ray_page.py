"""Ray's dashboard: where it is, how to get in, the lines of the search in it, its metrics."""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from common.errors import reason_of
from common.log import lines_beside
from common.values import in_ascii
from search.cluster.ray_session import AUTH_MODE

LOGGER = logging.getLogger(__name__)
GRAFANA = "grafana.json"
"""Grafana's dashboard of a search, beside this module."""
GRAFANA_UID = "espalier"
"""What Grafana knows it by."""
TAB = "RAY_GRAFANA_DATA_DASHBOARD_UID"
"""Names the dashboard in the second tab of Ray's Metrics page, which else is that of Ray Data."""
TAB_FILE = Path("metrics") / "grafana" / "dashboards" / "data_grafana_dashboard.json"
"""Where Ray puts that dashboard for Grafana, in its session's directory."""


@dataclass(frozen=True)
class RayPage:
    """Ray's dashboard of one search."""

    host: str
    """Address that it is served on."""
    port: int
    """Port of the page."""
    metrics_port: int
    """Port that Prometheus reads."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the job says of itself."""

    def start_options(self) -> dict[str, Any]:
        """Those of `ray.init` for a Ray of this machine, which reads others from the environment,
        where they are set unless the user has."""
        os.environ.setdefault(TAB, GRAFANA_UID)
        return {
            "dashboard_host": self.host,
            "dashboard_port": self.port,
            "_metrics_export_port": self.metrics_port,
        }

    @contextmanager
    def shown(self, study: str, context: Any, *, own: bool) -> Iterator[None]:
        """Say where the page is, and have the search's lines in it inside.

        `context` is what `ray.init` gave; `own` says that this process started that Ray.
        """
        session, url = Path(context.address_info["session_dir"]), f"http://{context.dashboard_url}"
        LOGGER.info(f"Ray dashboard: {url}{_how_to_get_in()}")
        if own:
            LOGGER.info(
                "metrics for Prometheus: "
                f"http://{context.address_info['node_ip_address']}:{self.metrics_port}/metrics "
                "(Ray serves them on all addresses of this machine, and asks for no token there)"
            )
            _give_to_grafana(session)
        log = session / "logs" / f"espalier-{_in_file_names(study)}.log"
        try:
            file = log.open("a", encoding="utf-8")
        except OSError as problem:  # of a cluster of another user
            LOGGER.info(f"no lines of the search in Ray's dashboard: {reason_of(problem)}")
            yield
            return
        LOGGER.info(
            f"these lines in it: {url}/#/logs/viewer?nodeId={context.address_info['node_id']}"
            f"&fileName={log.name}"
        )
        with file, lines_beside(lambda line: _write(file, line)):
            yield


def _how_to_get_in() -> str:
    """What is to be done where the page asks for a token."""
    if os.environ.get(AUTH_MODE) != "token":
        return ""
    ray = Path(sys.executable).with_name("ray")
    command = f"{ray if ray.exists() else 'ray'} get-auth-token"
    return f' (paste what "{command}" prints where the page asks for a token, once per browser)'


def _give_to_grafana(session: Path) -> None:
    """Put the search's dashboard where a Grafana with Ray's own settings looks for it."""
    target = session / TAB_FILE
    if target.exists() and os.environ.get(TAB) == GRAFANA_UID:
        target.write_text(grafana_dashboard())


def grafana_dashboard() -> str:
    """Grafana's dashboard of a search, as JSON."""
    return files("search.cluster").joinpath(GRAFANA).read_text("utf-8")


def _in_file_names(study: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", in_ascii(study))[:100]


def _write(file: Any, line: str) -> None:
    with suppress(OSError):  # a full disk is told of by what is written for good
        file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        file.flush()
