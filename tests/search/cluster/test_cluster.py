"""Ray clusters: what there is room for, and runs that outlive the node they are on.

The nodes of the cluster are on one machine. That its workers do not see the workspace is enforced:
its marker is not the one that they are told to look for.
"""

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._private import ray_constants, worker
from ray._private.runtime_env import uv_runtime_env_hook
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from transformers import AutoModelForCausalLM

from common.errors import SearchError
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Architecture, Checkpoint, architecture_of
from search.cluster.cluster import available_resources, cluster_nodes, ray_cluster
from search.cluster.ray_session import UV_RUN, quiet_ray
from search.cluster.resources import Node, Resources
from search.config.sections import ResourceConfig
from search.workers.access import MARKER, WorkspaceAccess
from search.workers.candidate import CandidateRun, Job, SearchAssets
from search.workers.file_server import serve_workspace
from search.workers.slot import Slot, WorkerTask
from tests.ray_cluster import running_cluster
from tests.search.assets import BLOCK, write_assets

STEPS = 200
TOKENS = STEPS * 2 * BLOCK
RESOURCES = Resources(1, 1, 0.0)
"""Of a worker."""
SHAPE = Architecture(layers=1, hidden=8, heads=1, kv_heads=1, ffn=8)
PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""


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


@dataclass
class Nodes:
    """A cluster whose head runs no trials, and its other nodes by their Ray id."""

    cluster: Cluster
    workers: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, cpus: int) -> None:
        """Ray gives a node half a minute to start, which a busy machine may not do in one go."""
        for attempt in range(3):
            try:
                node = self.cluster.add_node(num_cpus=cpus, num_gpus=0)
            except Exception as problem:
                if attempt == 2 or "timed out during startup" not in str(problem):
                    raise
            else:
                self.workers[node.node_id] = node
                return

    def kill(self, node_id: str) -> None:
        """As a power cut: nothing on it can say good-bye."""
        self.cluster.remove_node(self.workers.pop(node_id), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running_cluster(tmp_path_factory.mktemp("cache")) as cluster:
        nodes = Nodes(cluster, {})
        for cpus in (1, 2):
            nodes.add(cpus)
        cluster.wait_for_nodes()
        yield nodes


@pytest.mark.process
def test_resources_are_those_of_the_nodes(nodes: Nodes) -> None:
    def resources(**given: Any) -> Resources:
        return available_resources(ResourceConfig(**given), "cpu", address=nodes.address)

    assert resources() == Resources(3, 1, 0.0)
    assert resources(cpus=2) == Resources(1, 2, 0.0), "the smaller node has no room"
    assert resources(concurrent=2).concurrent == 2
    with pytest.raises(SearchError, match="room for 3 trials"):
        resources(concurrent=4)
    with pytest.raises(SearchError, match="no node of the Ray cluster.*the largest has 2 CPUs"):
        resources(cpus=3)
    with pytest.raises(SearchError, match="1 CPUs and 0.5 GPUs per trial, but no node"):
        resources(gpus=0.5)
    assert all(0 < node.memory < math.inf for node in cluster_nodes(nodes.address)[1:])
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> SearchAssets:
    """A workspace with a tiny teacher and all that its students learn from."""
    training = ResolvedTraining(batch=2, learning_rate=5e-3, precision="fp32")
    return write_assets(tmp_path_factory.mktemp("workspace"), training)


@pytest.fixture
def root(assets: SearchAssets) -> Path:
    return assets.corpus.parent


@pytest.fixture
def unseen(nodes: Nodes, root: Path) -> Iterator[WorkspaceAccess]:
    """The workspace, served to workers that do not see it."""
    resources = Resources(3, 1, 0.0)
    with (
        ray_cluster("test", resources, dashboard=False, address=nodes.address),
        serve_workspace(root) as access,
    ):
        (root / MARKER).write_text("another machine's")
        yield access


def job_of(assets: SearchAssets, name: str) -> Job:
    shape = replace(architecture_of(Checkpoint(assets.teacher).config), ffn=24)
    checkpoint = assets.corpus.parent / "checkpoints" / name
    limits = RunLimits(TOKENS, reports=2, checkpoint=checkpoint, checkpoint_seconds=0.02)
    return Job(name, shape, limits)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def steps(job: Job) -> int:
    """Steps of the checkpoint in the driver's workspace; 0 where there is none."""
    assert job.limits.checkpoint is not None
    try:
        return int(json.loads((job.limits.checkpoint / "meta.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


def undisturbed(assets: SearchAssets, threads: int) -> float:
    """The KL at the end of a run in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run = CandidateRun(assets, replace(job_of(assets, "here"), limits=RunLimits(TOKENS, 2)))
        report = run.next_report()
        while not report.done:
            report = run.next_report()
    finally:
        torch.set_num_threads(before)
    return report.curve[-1].kl


@pytest.mark.process
def test_a_full_run_goes_on_when_its_node_is_lost_and_its_result_comes_home(
    nodes: Nodes, unseen: WorkspaceAccess, assets: SearchAssets, root: Path
) -> None:
    job = job_of(assets, "full")
    output = root / "full" / "winner"

    def start(node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = Slot.options(  # type: ignore[attr-defined]
            num_cpus=1, scheduling_strategy=there
        )
        task = WorkerTask(job=job, assets=assets, resources=RESOURCES, output=output, access=unseen)
        return options.remote().train.remote(task)

    victim, spare = nodes.workers
    done = start(victim)
    until(lambda: steps(job) > 0)
    nodes.kill(victim)
    with pytest.raises(RayError):
        ray.get(done)
    assert steps(job) < STEPS and not output.exists(), "the run ended before its node did"
    assert ray.get(start(spare)) is None
    summary = json.loads((output / "done.json").read_text())
    assert summary["tokens"] == TOKENS and 0 < summary["resumed_tokens"] < TOKENS
    assert summary["curve"][-1]["kl"] == undisturbed(assets, 1)
    model = AutoModelForCausalLM.from_pretrained(output / "model")
    assert torch.isfinite(model(torch.zeros(1, 4, dtype=torch.long)).logits).all()
