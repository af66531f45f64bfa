"""Groups of slots: a run on two processes is that of one, goes on with another number of them, and
one process that dies takes the group down, not the study."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from safetensors.torch import load_file

from distill.recipes import RunReport, RunResult
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Checkpoint, architecture_of
from search.cluster.cluster import ray_cluster
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.workers.candidate import Job, SearchAssets
from search.workers.slot import Slot, TrialTask, WorkerTask
from search.workers.slots import SlotPool
from tests.search.assets import BLOCK, write_assets

pytestmark = pytest.mark.process
TWO = Resources(1, 1, 0.0, workers=2)
ONE = replace(TWO, workers=1)
ROUNDING = 1e-4
"""Relative, of fp32 sums in another order."""


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> SearchAssets:
    training = ResolvedTraining(batch=2, learning_rate=5e-3, precision="fp32")
    return write_assets(tmp_path_factory.mktemp("workspace"), training)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster("groups", Resources(3, 1, 0.0), dashboard=False):
        yield


@pytest.fixture(scope="module")
def one(cluster: None) -> Iterator[SlotPool]:
    """A slot of one process, which both tests use, since starting it takes longest."""
    yield from pool(ONE)


@pytest.fixture(scope="module")
def two(cluster: None) -> Iterator[SlotPool]:
    """A slot of two processes; the last test kills one."""
    yield from pool(TWO)


def pool(resources: Resources) -> Iterator[SlotPool]:
    slots = SlotPool(Room(resources, lambda: 0), Slot)
    yield slots
    slots.close()


def job(assets: SearchAssets, name: str, checkpoints: Path) -> Job:
    """Of ten steps, with a report after five."""
    shape = replace(architecture_of(Checkpoint(assets.teacher).config), ffn=24)
    limits = RunLimits(20 * BLOCK, reports=2, checkpoint=checkpoints / name, checkpoint_seconds=0)
    return Job(name, shape, limits)


def test_a_run_on_two_processes_is_that_of_one(
    assets: SearchAssets, one: SlotPool, two: SlotPool, tmp_path: Path
) -> None:
    written: list[Any] = []
    for resources, slots in ((ONE, one), (TWO, two)):
        output = tmp_path / f"full-{resources.workers}"
        task = WorkerTask(
            job=job(assets, output.name, tmp_path),
            assets=assets,
            resources=resources,
            output=output,
        )
        slot = slots.take()
        assert ray.get(slot.train.remote(task)) is None
        slots.give_back(slot)
        written.append((RunResult.read(output), load_file(output / "model" / "model.safetensors")))
    (alone, weights), (together, others) = written
    assert [point.tokens for point in together.curve] == [point.tokens for point in alone.curve]
    for theirs, ours in zip(together.curve, alone.curve, strict=True):
        assert theirs.kl == pytest.approx(ours.kl, rel=ROUNDING)
    for name, value in weights.items():
        assert (others[name] - value).abs().max() <= 1e-3 * value.abs().max(), name


def test_a_group_whose_member_dies_dies_and_one_process_goes_on(
    assets: SearchAssets, one: SlotPool, two: SlotPool, tmp_path: Path
) -> None:
    first = two.take()
    task = TrialTask(
        study="test",
        job=job(assets, "trial", tmp_path),
        assets=assets,
        resources=TWO,
        output=None,
    )
    report: RunReport = ray.get(first.next_report.remote(task))
    assert not report.done and report.tokens == 10 * BLOCK
    [follower] = two._followers[id(first)].slots
    pid = ray.get(follower.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RayActorError):
        ray.get(first.next_report.remote(task))
    two.drop(first)
    slot, task = one.take(), replace(task, resources=ONE)
    again: RunReport = ray.get(slot.next_report.remote(task))
    assert again.resumed_tokens == report.tokens and again.curve == report.curve
    last: RunReport = ray.get(slot.next_report.remote(task))
    assert last.done
    other = replace(task, job=job(assets, "alone", tmp_path))
    ray.get(slot.next_report.remote(other))
    undisturbed: RunReport = ray.get(slot.next_report.remote(other))
    assert last.curve[-1].kl == pytest.approx(undisturbed.curve[-1].kl, rel=ROUNDING)
    one.give_back(slot)
