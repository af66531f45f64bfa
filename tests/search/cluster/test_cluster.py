"""Ray clusters: what there is room for. Studies on one are in tests/test_cluster_study.py."""

import math
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray._private import ray_constants, worker
from ray._private.runtime_env import uv_runtime_env_hook
from ray.cluster_utils import Cluster

from common.errors import SearchError
from search.cluster.cluster import (
    available_resources,
    cluster_nodes,
    of_full_runs,
    shared_resources,
)
from search.cluster.ray_session import UV_RUN, quiet_ray
from search.cluster.resources import Node, Resources
from search.config.sections import ResourceConfig
from tests.ray_cluster import running_cluster


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "room"),
    [
        (Node(8, 0), 3, 0, 2),
        (Node(2, 0), 3, 0, 0),
        (Node(8, 0), 1, 0.5, 0),
        (Node(64, 2), 1, 0.5, 4),
        (Node(64, 3), 1, 0.3, 9),
        (Node(64, 1), 1, 1 / 3, 3),
        (Node(64, 1), 1, 0.7, 1),
        (Node(64, 7), 1, 2, 3),
        (Node(4, 8), 2, 0.5, 2),
    ],
)
def test_a_trial_never_straddles_gpus_or_nodes(
    node: Node, cpus: int, gpus: float, room: int
) -> None:
    assert node.room(cpus, gpus) == room


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense", "it must be auto, or HOST:PORT"),
        ("ray://127.0.0.1:10001", "it must be auto, or HOST:PORT"),
        ("127.0.0.1:{free}", "no Ray cluster answers there"),
    ],
)
def test_an_address_where_no_cluster_answers(address: str, said: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = address.format(free=probe.getsockname()[1])
        with pytest.raises(SearchError, match=f"--address is '{address}'.*{said}") as caught:
            available_resources(ResourceConfig(), "cpu", address=address)
    assert "\n" not in str(caught.value)


UPLOADED = ("py_executable", "working_dir")


@pytest.mark.parametrize(("user", "uploaded"), [(None, ()), ("0", ()), ("1", UPLOADED)])
def test_a_command_of_uv_run_uploads_nothing_unless_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, user: str | None, uploaded: tuple[str, ...]
) -> None:
    """What Ray makes of the runtime environment below `uv run`, and starts workers with."""
    others = {name: value for name, value in os.environ.items() if name != UV_RUN}
    monkeypatch.setattr(os, "environ", others | ({} if user is None else {UV_RUN: user}))
    monkeypatch.setattr(ray_constants, UV_RUN, True)  # as Ray was imported
    command = ["uv", "run", "--no-project", "run_search.py"]
    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: command)
    quiet_ray()
    made = worker._maybe_modify_runtime_env({}, False)
    assert tuple(sorted(made)) == uploaded


def add_node(cluster: Cluster, cpus: int) -> None:
    """Ray gives a node half a minute to start, which a busy machine may not do in one go."""
    for attempt in range(3):
        try:
            cluster.add_node(num_cpus=cpus, num_gpus=0)
        except Exception as problem:
            if attempt == 2 or "timed out during startup" not in str(problem):
                raise
        else:
            return


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster whose head runs no trials, and two nodes of one and two CPUs."""
    with running_cluster(tmp_path_factory.mktemp("cache")) as cluster:
        for cpus in (1, 2):
            add_node(cluster, cpus)
        cluster.wait_for_nodes()
        yield str(cluster.address)


@pytest.mark.process
def test_resources_are_those_of_the_nodes(address: str) -> None:
    def resources(**given: Any) -> Resources:
        return available_resources(ResourceConfig(**given), "cpu", address=address)

    assert resources() == Resources(3, 1, 0.0)
    assert resources(cpus=2) == Resources(1, 2, 0.0), "the smaller node has no room"
    assert resources(concurrent=2).concurrent == 2
    with pytest.raises(SearchError, match="room for 3 trials"):
        resources(concurrent=4)
    with pytest.raises(SearchError, match="no node of the Ray cluster.*the largest has 2 CPUs"):
        resources(cpus=3)
    with pytest.raises(SearchError, match="1 CPUs and 0.5 GPUs per trial, but no node"):
        resources(gpus=0.5)
    assert all(0 < node.memory < math.inf for node in cluster_nodes(address)[1:])
    assert not ray.is_initialized()


def test_the_processes_of_a_run_share_a_node() -> None:
    nodes = [Node(8, 4), Node(8, 2)]
    config = ResourceConfig(workers=2, cpus=3)
    found = shared_resources(config, "cuda", nodes=nodes, where="here")
    assert (found.concurrent, found.workers, found.cpus, found.gpus) == (2, 2, 3, 1.0)
    assert of_full_runs(found, 2) is found
    assert of_full_runs(found, 1) == replace(found, workers=1, concurrent=4)
    with pytest.raises(SearchError, match="--full_workers is 3, but no node has 9 CPUs"):
        of_full_runs(found, 3)
    with pytest.raises(SearchError, match="asks for 10 CPUs and 2 GPUs per trial"):
        shared_resources(replace(config, cpus=5), "cuda", nodes=nodes, where="here")
    with pytest.raises(SearchError, match="need a GPU each; use 1"):
        shared_resources(replace(config, gpus=0.5), "cuda", nodes=nodes, where="here")
