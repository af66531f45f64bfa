"""A study on a Ray cluster of three nodes that do not see its workspace; one is killed midway."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.workers.access import MARKER
from search.workers.staging import CACHE_VARIABLE
from tests.driver import ENVIRONMENT, Driver, progress_within
from tests.processes import spawned
from tests.ray_cluster import running_cluster

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Driver]:
    """The study at its end."""
    with running_cluster(tmp_path_factory.mktemp("cache")) as cluster:
        nodes = [cluster.add_node(num_cpus=1, num_gpus=0) for _ in range(2)]
        cluster.wait_for_nodes()
        # a Ray of an earlier test may have turned tokens on for this process
        mode = {name: os.environ[name] for name in ("RAY_AUTH_MODE",) if name in os.environ}
        directory = tmp_path_factory.mktemp("cluster") / "study"
        driver = Driver(directory, corpus, ENVIRONMENT | mode, spawned)
        process = driver.start(
            address=cluster.address,
            trials=2,
            full_tokens=6144,  # longer than a trial, so that the winner is trained on a node
            evidence="none",
            resources__concurrent=2,
            checkpoint_seconds=0,
        )
        marker = driver.workspace / MARKER
        driver.until(process, marker.exists)
        marker.write_text("another machine's")  # and so nobody else sees the workspace
        driver.until_within(process, "trial-*")
        raylets = [node.all_processes["raylet"][0].process for node in nodes]
        at_work = [driver.trial_workers(raylet) for raylet in raylets]
        cluster.remove_node(nodes[0 if at_work[0] else 1], allow_graceful=False)
        driver.wait(process, 0)
        yield driver


def test_a_lost_node_costs_no_trial(study: Driver) -> None:
    assert len(study.finished_trials()) == 2
    assert study.states()["RUNNING"] == study.states()["WAITING"] == 0
    shapes = [str(t.user_attrs["architecture"]) for t in study.finished_trials()]
    assert len(set(shapes)) == 2


def test_what_ran_on_the_lost_node_was_taken_up_again(study: Driver) -> None:
    lost = [t for t in study.trials() if "worker died" in t.user_attrs.get("error", "")]
    assert lost
    for trial in lost:
        assert trial.state == TrialState.FAIL
        (again,) = [t for t in study.trials() if t.user_attrs.get("continues") == trial.number]
        assert progress_within(again).tokens > 0


def test_students_came_home(study: Driver) -> None:
    assert (study.workspace / "best" / "model.safetensors").exists()
    (done,) = study.workspace.glob("full/*/*-6144/done.json")
    assert json.loads(done.read_text())["tokens"] == 6144
    assert list(Path(os.environ.get(CACHE_VARIABLE, "/nowhere")).glob("sorted-*"))
