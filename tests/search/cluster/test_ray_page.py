"""Ray's dashboard of a small real session: job, lines, metrics that Prometheus reads, Grafana."""

import json
import logging
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from optuna.trial import TrialState, create_trial

from distill.recipes import RunReport
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Checkpoint, architecture_of
from search.cluster.cluster import ray_cluster
from search.cluster.ray_page import GRAFANA_UID, TAB_FILE, RayPage, grafana_dashboard
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.dashboards.gauges import StudyGauges
from search.dashboards.ports import free_port
from search.workers.candidate import Job
from search.workers.run_gauges import GAUGES
from search.workers.slot import Slot, TrialTask
from search.workers.slots import SlotPool
from tests.search.assets import BLOCK, write_assets

ONE = Resources(1, 1, 0.0)
STUDY = "größe 1"
PATIENCE = 240.0
SERIES = re.compile(r"^(ray_espalier_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def scraped(page: RayPage) -> list[tuple[str, dict[str, str], float]]:
    """(metric, tags, value) of all of ours that Prometheus would read now."""
    url = f"http://127.0.0.1:{page.metrics_port}/metrics"
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value))
        for name, tags, value in SERIES.findall(text)
    ]


def shown_by_grafana() -> set[str]:
    """Our metrics that its panels and variables ask for."""
    return set(re.findall(r"ray_espalier_\w+", grafana_dashboard()))


def test_grafana_asks_for_the_metrics_that_there_are() -> None:
    of_study = {"ray_espalier_trials", "ray_espalier_best_kl", "ray_espalier_trials_wanted"}
    assert shown_by_grafana() == of_study | {f"ray_espalier_{name}" for name in GAUGES}
    dashboard = json.loads(grafana_dashboard())
    assert dashboard["uid"] == GRAFANA_UID
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {"datasource", "SessionName"} <= names, "which Ray's Metrics page sets"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.process
def test_a_search_is_seen_in_rays_dashboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_GRAFANA_DATA_DASHBOARD_UID", raising=False)
    caplog.set_level(logging.INFO)
    training = ResolvedTraining(batch=2, learning_rate=5e-3, precision="fp32")
    assets = write_assets(tmp_path, training)
    shape = architecture_of(Checkpoint(assets.teacher).config)
    job = Job("trial-0003", shape, RunLimits(8 * BLOCK, reports=2, checkpoint=tmp_path / "c"))
    task = TrialTask(study=STUDY, job=job, assets=assets, resources=ONE, output=None)
    port, metrics_port = (free_port("127.0.0.1", 0, option="--x") for _ in range(2))
    page = RayPage("127.0.0.1", port, metrics_port, {"budget": "0.5"})
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, state=TrialState.COMPLETE))

    with ray_cluster(STUDY, ONE, page=page):
        StudyGauges(STUDY, 7, study.get_trials)
        slots = SlotPool(Room(ONE, lambda: 0), Slot)
        slot = slots.take()
        logging.getLogger("search").info("trial-0003 begins")
        report: RunReport = ray.get(slot.next_report.remote(task))
        assert isinstance(report, RunReport) and not report.done
        wanted = {"kl", "tokens", "tokens_per_second", "peak_memory_bytes"}
        metrics = {f"ray_espalier_{name}" for name in wanted} | {"ray_espalier_trials"}
        found: list[tuple[str, dict[str, str], float]] = []
        end = time.monotonic() + PATIENCE
        while not metrics <= {name for name, _, _ in found} and time.monotonic() < end:
            time.sleep(0.5)
            found = scraped(page)
        told = _asked(page, "/api/jobs/")
        actors = _asked(page, "/api/v0/actors")["data"]["result"]["result"]
        session = _session()

    tags = {"study": r"gr\xf6\xdfe 1", "run": "trial-0003", "architecture": str(shape)}
    for name, value in (("kl", report.last.kl), ("tokens", 4 * BLOCK)):
        (series,) = [one for one in found if one[0] == f"ray_espalier_{name}"]
        assert series[2] == pytest.approx(value)
        assert {key: series[1][key].replace("\\\\", "\\") for key in tags} == tags
    (speed,) = [value for name, _, value in found if name == "ray_espalier_tokens_per_second"]
    assert speed > 0
    states = {one["state"]: value for name, one, value in found if name == "ray_espalier_trials"}
    assert states["complete"] == 1 and states["running"] == 0
    (driver,) = [job for job in told if job["type"] == "DRIVER"]
    assert driver["metadata"]["job_name"] == STUDY and driver["metadata"]["budget"] == "0.5"
    assert [actor["name"] for actor in actors if actor["class_name"] == "Slot"] == ["slot 1"]
    assert "trial-0003 begins" in (session / "logs" / "espalier-gr-xf6-xdfe-1.log").read_text()
    assert json.loads((session / TAB_FILE).read_text())["title"] == "Espalier"
    (line,) = [line for line in caplog.messages if line.startswith("Ray dashboard: ")]
    assert f"http://127.0.0.1:{page.port}" in line and "ray get-auth-token" in line


def _session() -> Path:
    """Directory of the session of this Ray."""
    node: Any = ray._private.worker._global_node
    return Path(node.get_session_dir_path())


def _asked(page: RayPage, path: str) -> Any:
    """What the dashboard answers who has its token."""
    token = (Path.home() / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{page.port}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    return json.loads(urllib.request.urlopen(request, timeout=20).read())
