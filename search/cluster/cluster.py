"""Ray for the runs of a study, on this machine or a cluster, and the resources that it has."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import ray
import torch
from ray.job_config import JobConfig

from common.errors import SearchError
from common.machine import Machine
from search.cluster.ray_page import RayPage
from search.cluster.ray_session import joined_cluster, ray_session
from search.cluster.resources import Node, Resources
from search.config.sections import ResourceConfig

OPTION = "--address"


def available_resources(
    config: ResourceConfig,
    device: str,
    *,
    address: str | None = None,
    machine: Machine | None = None,
) -> Resources:
    """Resources for as many runs as this `machine` has room for, or the Ray cluster at `address`.

    A run never straddles nodes. Raises SearchError where there is not what `config` asks for.
    """
    gpus = _gpus_of_a_process(config, device)
    if address is None:
        machine = machine or Machine.here()
        nodes, where = [_this_machine(machine, cpus=config.cpus, gpus=gpus)], "the machine"
    else:
        nodes, where = cluster_nodes(address), f"the Ray cluster at {address}"
    return shared_resources(config, device, nodes=nodes, where=where)


def shared_resources(
    config: ResourceConfig, device: str, *, nodes: Sequence[Node], where: str
) -> Resources:
    """Resources for as many runs as these `nodes`, which are called `where`, have room for.

    Raises SearchError where there is not what `config` asks for.
    """
    gpus = _gpus_of_a_process(config, device)
    one = Resources(1, config.cpus, gpus, tuple(nodes), workers=config.workers)
    of_each = f"{config.workers * config.cpus} CPUs and {config.workers * gpus:g} GPUs"
    most = sum(map(one.room, nodes))
    if not most:
        largest = max(nodes, key=lambda node: (min(node.gpus, config.workers * gpus), node.cpus))
        raise SearchError(
            f"--resources asks for {of_each} per trial, but no node of {where} has as much; the "
            f"largest has {largest.cpus} CPUs and {largest.gpus} GPUs"
        )
    concurrent = config.concurrent or most
    if concurrent > most:
        raise SearchError(
            f"--resources.concurrent is {concurrent}, but {where} has room for {most} trials "
            f"of {of_each}"
        )
    return replace(one, concurrent=concurrent)


def of_full_runs(resources: Resources, workers: int) -> Resources:
    """The same nodes shared by runs of so many processes each.

    Raises SearchError where no node has room for one.
    """
    if workers == resources.workers:
        return resources
    one = replace(resources, workers=workers)
    most = sum(map(one.room, resources.nodes))
    if not most:
        raise SearchError(
            f"--full_workers is {workers}, but no node has {workers * one.cpus} CPUs and "
            f"{workers * one.gpus:g} GPUs for a full run"
        )
    at_once = resources.concurrent * resources.workers // workers
    return replace(one, concurrent=max(1, min(most, at_once)))


def _gpus_of_a_process(config: ResourceConfig, device: str) -> float:
    gpus = (1.0 if device == "cuda" else 0.0) if config.gpus is None else config.gpus
    if gpus > 1 and gpus != int(gpus):
        raise SearchError(
            f"--resources.gpus is {gpus:g}; above one it must be a whole number of GPUs"
        )
    if 0 < gpus < 1 and config.workers > 1:
        raise SearchError(
            f"--resources.gpus is {gpus:g}, but the {config.workers} processes of a trial "
            "(--resources.workers) need a GPU each; use 1"
        )
    return gpus


def _this_machine(machine: Machine, *, cpus: int, gpus: float) -> Node:
    """Raises SearchError where it has not what one run needs."""
    if cpus > machine.cpus:
        raise SearchError(f"--resources.cpus is {cpus}, but this machine has {machine}")
    count = torch.cuda.device_count() if gpus else 0
    if gpus > count:
        raise SearchError(
            f"--resources.gpus is {gpus:g} per trial, but this machine has {count} GPUs"
        )
    return Node(machine.cpus, count, machine.memory)


def cluster_nodes(address: str) -> list[Node]:
    """The live nodes of the Ray cluster at `address`. Raises SearchError where none answers."""
    with joined_cluster(address, OPTION):
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Node(int(each.get("CPU", 0)), int(each.get("GPU", 0)), each.get("memory", math.inf))
        for each in alive
    ]


@contextlib.contextmanager
def ray_cluster(
    study: str, resources: Resources, *, page: RayPage | None = None, address: str | None = None
) -> Iterator[None]:
    """A fresh Ray on this machine, or the one at `address`, which is joined and left as it is.

    Workers of a fresh one inherit nothing that names the database; it has a dashboard only with a
    `page`. Raises SearchError where no cluster answers at `address`.
    """
    job = JobConfig(metadata={"job_name": study, "study": study, **(page.facts if page else {})})
    if address is None:
        cluster = ray_session(
            address="local",
            num_cpus=resources.all_cpus,
            num_gpus=None if resources.gpus else 0,
            include_dashboard=page is not None,
            job_config=job,
            **(page.start_options() if page else {}),
        )
    else:
        cluster = joined_cluster(address, OPTION, job_config=job)
    with cluster as context:
        if page is None or not context.dashboard_url:
            yield
            return
        with page.shown(study, context, own=address is None):
            yield
