"""Slots: what they reserve, and when they are ended."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError

from search.cluster.resources import Resources
from search.cluster.room import Room
from search.workers import slots as slots_module
from search.workers.slots import SlotPool


@dataclass
class Actors:
    """Stands for Ray: actors are numbers."""

    reserved: list[dict[str, Any]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)

    def options(self, **reserved: Any) -> Any:
        self.reserved.append(reserved)
        return SimpleNamespace(remote=lambda: len(self.reserved))

    def kill(self, slot: int) -> None:
        self.killed.append(slot)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    actors = Actors()
    monkeypatch.setattr(slots_module, "ray", actors)
    return actors


def pool_of(actors: Actors, resources: Resources, kept_seconds: float = math.inf) -> SlotPool:
    return SlotPool(Room(resources, lambda: 0), actors, kept_seconds=kept_seconds)


def test_a_slot_reserves_memory_where_its_node_would_else_get_too_many(actors: Actors) -> None:
    pool = pool_of(actors, Resources(1, 1, 0.5, memory=9))
    pool.take()
    named = {"name": "slot 1", "namespace": pool.namespace}
    assert actors.reserved == [{**named, "num_cpus": 1, "num_gpus": 0.5, "memory": 9}]


def test_a_slot_is_used_again_and_one_after_a_failure_is_not(actors: Actors) -> None:
    slots = pool_of(actors, Resources(2, 1, 0.0))
    assert [slots.take(), slots.take()] == [1, 2]
    slots.give_back(1)
    assert slots.take() == 1
    slots.drop(1)
    assert actors.killed == [1] and slots.take() == 3
    slots.close()
    assert sorted(actors.killed) == [1, 2, 3]


def test_where_there_is_room_for_fewer_by_now_fewer_are_kept(actors: Actors) -> None:
    slots = pool_of(actors, Resources(3, 1, 0.0))
    for _ in range(3):
        slots.take()
    slots.room.limit = 1
    for slot in (1, 2, 3):
        slots.give_back(slot)
    assert actors.killed == [1, 2] and slots.take() == 3


@pytest.mark.parametrize(("kept_seconds", "ended"), [(math.inf, []), (0.0, [2])])
def test_on_a_shared_cluster_a_slot_without_work_is_given_up(
    actors: Actors, kept_seconds: float, ended: list[int]
) -> None:
    slots = pool_of(actors, Resources(2, 1, 0.0), kept_seconds)
    slots.take()
    slots.give_back(slots.take())
    slots.release_unused()
    assert actors.killed == ended
    slots.release()
    assert actors.killed == [2], "the one that is at work stays"


@pytest.mark.parametrize("problem", [ActorDiedError(), GetTimeoutError()])
def test_a_slot_that_does_not_answer_is_given_up_before_it_is_given_work(
    actors: Actors, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """Such as one on a node that died: a trial that it was given would lose a try."""

    def answer(reference: int, timeout: float) -> None:
        if reference == 2:
            raise problem

    def slot() -> Any:
        number = len(actors.reserved)
        return SimpleNamespace(number=number, __ray_ready__=SimpleNamespace(remote=lambda: number))

    monkeypatch.setattr(actors, "get", answer, raising=False)
    monkeypatch.setattr(slots_module, "TRUSTED_SECONDS", 0.0)
    monkeypatch.setattr(Actors, "options", lambda self, **reserved: start(self, reserved))

    def start(self: Actors, reserved: dict[str, Any]) -> Any:
        self.reserved.append(reserved)
        return SimpleNamespace(remote=slot)

    slots = pool_of(actors, Resources(2, 1, 0.0))
    both = [slots.take(), slots.take()]
    for each in both:
        slots.give_back(each)
    assert [slots.take().number, slots.take().number] == [1, 3]
    assert actors.killed == [both[1]]
