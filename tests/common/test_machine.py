"""CPUs and memory that a process may use, whatever the machine of the tests has."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from common.errors import SearchError
from common.machine import Cgroups, Machine, machine
from search.cluster.cluster import available_resources
from search.cluster.resources import Resources
from search.config.sections import ResourceConfig


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs, and 8 GB of 10 free."""
    monkeypatch.setattr(machine, "_let", lambda: 16)
    free = SimpleNamespace(available=8_000_000_000, total=10_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)


def here(folder: Path, quota: str = "max", limit: str = "max", used: int = 0) -> Machine:
    (folder / "cpu.max").write_text(f"{quota} 100000")
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    return Machine.here(Cgroups((folder,), (folder,)))


@pytest.mark.parametrize(
    ("quota", "cpus", "said"),
    [
        ("max", 16, []),
        ("3200000", 16, []),
        ("350000", 3, ["3 of 16 CPUs: the container's quota"]),
        ("150000", 1, ["1 of 16 CPUs: the container's quota"]),
        ("20000", 1, ["1 of 16 CPUs: the container's quota"]),
    ],
)
def test_whole_cpus_of_a_quota_at_least_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    quota: str,
    cpus: int,
    said: list[str],
) -> None:
    threads: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("RAYON_NUM_THREADS", "7")  # a user's, which stays
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    found = here(tmp_path, quota)
    found.keep_to_quota()
    assert found.cpus == cpus
    assert lines == said and threads == [cpus] * len(said)


def test_threads_that_the_user_set_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setenv("RAYON_NUM_THREADS", "9")
    monkeypatch.setattr(torch, "set_num_threads", pytest.fail)
    here(tmp_path, "300000").keep_to_quota()


def test_memory_is_the_less_of_machine_and_container(tmp_path: Path) -> None:
    unbound = here(tmp_path)
    assert (unbound.memory, unbound.whole_memory) == (8_000_000_000, 10_000_000_000)
    bound = here(tmp_path, limit="3000000000", used=1_000_000_000)
    assert (bound.memory, bound.whole_memory) == (2_000_000_000, 3_000_000_000)
    loose = here(tmp_path, limit="90000000000")
    assert (loose.memory, loose.whole_memory) == (8_000_000_000, 10_000_000_000)


def test_resources_are_those_of_the_quota(tmp_path: Path) -> None:
    found = here(tmp_path, "350000")

    def resources(**given: int) -> Resources:
        return available_resources(ResourceConfig(**given), "cpu", machine=found)

    assert resources() == Resources(3, 1, 0.0)
    assert resources(cpus=2) == Resources(1, 2, 0.0)
    with pytest.raises(SearchError, match="this machine has 3 of 16 CPUs: the container's quota"):
        resources(cpus=4)
    with pytest.raises(SearchError, match="room for 3 trials"):
        resources(concurrent=4)
