"""Ports are tried before any work, and the pages go with their context."""

import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import SearchError
from search.config.objectives import Objectives
from search.config.shown import DashboardConfig
from search.config.study import SearchConfig
from search.dashboards.pages import check_ports, ray_page, study_page
from search.dashboards.ports import address, free_port
from search.database.storage import open_storage
from search.study.agreement import open_study


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("name", ["optuna_port", "ray_port", "metrics_port"])
def test_a_port_that_is_taken_is_refused_before_work(taken: int, name: str) -> None:
    changed: Any = {name: taken}
    pages = replace(DashboardConfig("127.0.0.1", 0, 0, 0), **changed)
    config = SearchConfig("t", "c", dashboard=True, pages=pages)
    with pytest.raises(SearchError, match=rf"--pages.{name} is {taken}, but .* or 0 for any"):
        check_ports(config)
    check_ports(SearchConfig("t", "c", pages=pages))  # no dashboard


def test_ports_of_a_cluster_are_its_own(taken: int) -> None:
    pages = DashboardConfig(optuna_port=0, ray_port=taken)
    page = ray_page(SearchConfig("t", "c", dashboard=True, address="auto", pages=pages))
    assert page is not None and page.facts["teacher"] == "t"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "localhost"}, "--pages.host is 'localhost'; give an IP address"),
        ({"ray_port": 80}, "--pages.ray_port is 80; it must be 0 or from 1,024"),
        ({"ray_port": 8080}, "must differ"),
    ],
)
def test_addresses_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SearchError, match=said):
        DashboardConfig(**settings)  # type: ignore[arg-type]


def test_a_host_that_is_not_here_is_said() -> None:
    with pytest.raises(SearchError, match=r"--x is 0, but it cannot be had on 192\.0\.2\.1"):
        free_port("192.0.2.1", 0, option="--x")


def test_urls_are_those_that_a_browser_opens() -> None:
    assert address("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert address("0.0.0.0", 80) == f"http://{socket.gethostname()}:80"
    assert address("::1", 80) == "http://[::1]:80"


def test_the_page_is_there_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = open_study(storage, "mine", objectives=Objectives())
    config = SearchConfig("t", "c", dashboard=True, pages=DashboardConfig(optuna_port=0))
    with study_page(config, storage, study, artifacts=tmp_path / "artifacts"):
        line = caplog.messages[-1]
        url = line.removeprefix("optuna-dashboard: ")
        assert url.endswith("/dashboard/studies/1")
        names = urllib.request.urlopen(url.replace("/dashboard/studies/1", "/api/studies")).read()
        assert b'"study_name": "mine"' in names
    with pytest.raises(OSError):
        urllib.request.urlopen(url)
    storage.engine.dispose()
