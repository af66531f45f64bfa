"""A Ray cluster of several nodes on one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from search.cluster.ray_session import quiet_ray
from search.workers.staging import CACHE_VARIABLE


@contextmanager
def running_cluster(cache: Path) -> Iterator[Cluster]:
    """A cluster whose head runs no trials; the nodes that are added to it cache in `cache`."""
    quiet_ray()
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(CACHE_VARIABLE, str(cache))  # nodes inherit it
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
