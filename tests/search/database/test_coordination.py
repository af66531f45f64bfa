"""Several drivers of one PostgreSQL study: no work twice, none lost, whoever dies."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from transformers import LlamaConfig

from search.config.sampler import SamplerSettings
from search.database.coordination import Coordination
from search.database.lease import leased
from search.database.storage import open_storage
from search.samplers.propose import Proposer
from search.study.policy import TrialPolicy
from search.study.queue import TrialQueue
from search.study.record import Record
from tests.postgresql import Server
from tests.search.conftest import SIZES, build_space

PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""


def open_named(url: str) -> tuple[optuna.Study, Any]:
    storage = open_storage(url)
    study = optuna.create_study(study_name="shared", storage=storage, load_if_exists=True)
    return study, storage


@pytest.fixture
def url(postgresql: Server) -> str:
    return postgresql.database()


def drive_alone(url: str, target: int) -> None:
    """A driver whose trials never end."""
    drive(*open_named(url), target, threading.Event().wait)


def drive(study: optuna.Study, storage: Any, target: int, work: Callable[[], object]) -> None:
    """Trials until there are enough; each does `work`."""
    with leased(study, shared=True) as driver:
        space = build_space(LlamaConfig(**SIZES))
        coordination = Coordination(study, storage, token=driver.token)
        queue = TrialQueue(study, coordination, max_retries=9)
        proposer = Proposer(space, SamplerSettings("grid"), 0)
        record = Record(queue, TrialPolicy(space, proposer, 0))
        while record.finished() < target:
            trial = record.next_trial(target)
            if trial is not None:
                work()
                record.complete(trial.number, 1.0)
            elif queue.reclaim() == 0:
                time.sleep(0.1)


def add(study: optuna.Study, shape: int) -> None:
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"architecture": shape}))


@pytest.mark.process
def test_nothing_is_done_twice_and_nothing_is_left(postgresql: Server, url: str) -> None:
    study, _ = open_named(url)
    opened = [open_named(url) for _ in range(3)]
    target = 16
    doomed = multiprocessing.get_context("spawn").Process(target=drive_alone, args=(url, target))
    doomed.start()
    meeting = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        try:
            wait_until(lambda: TrialState.RUNNING in states(study))
            others = [pool.submit(drive, *own, target, worker(meeting)) for own in opened]
            wait_until(lambda: states(study).count(TrialState.COMPLETE) >= 5)
            assert postgresql.drop_connections() >= 4
            wait_until(lambda: states(study).count(TrialState.COMPLETE) >= target - 1)
            assert not any(other.done() for other in others), "a live driver was not waited for"
        finally:
            doomed.kill()
            doomed.join()
        for other in others:
            other.result(PATIENCE)
    ended = states(study)
    assert ended.count(TrialState.COMPLETE) == target
    assert TrialState.RUNNING not in ended and TrialState.FAIL in ended
    done = [t.user_attrs for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert len({str(attributes["architecture"]) for attributes in done}) == target
    assert len({attributes["driver"] for attributes in done}) == 3, "not all drivers worked"


def worker(meeting: threading.Barrier) -> Callable[[], object]:
    """Work that ends the first time when all who meet are at theirs, and then at once."""
    first = [True]
    return lambda: meeting.wait(PATIENCE) if first and first.pop() else None


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_one_driver_is_granted_everything(tmp_path: Path) -> None:
    study, storage = open_named(f"sqlite:///{tmp_path}/study.db")
    side = Coordination(study, storage, token="me")
    assert not side.shared
    with side.exclusive(), side.exclusive():
        assert side.claim("report")
    add(study, 1)
    trial = study.ask()
    assert side.abandoned(study.get_trials())
    assert side.open_places(study.get_trials(), 2) == 2
    trial.set_user_attr("driver", "me")
    assert not side.abandoned(study.get_trials())
    assert side.open_places(study.get_trials(), 2) == 1
    study.tell(trial, 1.0)
    assert [side.open_places(study.get_trials(), target) for target in (0, 1, 2)] == [0, 0, 1]


def test_the_later_of_two_same_trials_is_surplus(study: optuna.Study) -> None:
    side = Coordination(study, None, token="me")
    for shape in (1, 2, 1):
        add(study, shape)
    assert [side.surplus(number, 9) for number in range(3)] == [False, False, True]
    assert [side.surplus(number, 1) for number in range(3)] == [False, True, True]
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.FAIL)
    assert not side.surplus(2, 2)
