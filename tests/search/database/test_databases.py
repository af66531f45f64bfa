"""What a database does for a study: the same cases on SQLite, PostgreSQL and MariaDB."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from common.errors import SearchError, SearchStopped
from distill.recipes.reports import RunReport
from search.config.sampler import SamplerSettings
from search.database.coordination import Coordination
from search.database.lease import leased
from search.database.storage import PatientStorage, open_storage
from search.database.storage_url import shown
from search.space.space import Space
from search.study.agreement import open_study
from search.study.record import Record
from tests.postgresql import ENCODED, PASSWORD, USER, Server

Opened = tuple[optuna.Study, PatientStorage]
Opening = Callable[[str], Opened]
RecordOn = Callable[..., Record]
ResultOf = Callable[..., RunReport]
SERVERS = ("postgresql", "mysql")
"""Fixtures of servers."""
SYNONYMS = {"postgresql": "postgresql+psycopg2", "mysql": "mariadb"}
"""Other names of what URLs begin with."""
PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""
LONG = "x" * 100_000
"""More than MySQL's TEXT holds."""


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def shared_url(server: Server) -> str:
    """A database of the server for all tests; each has a study of its own in it."""
    return server.database()


@pytest.fixture(scope="module", params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of any database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('storages') / 'study.db'}"
    found: Server = request.getfixturevalue(request.param)
    return found.database()


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Opening:
    """Opens the test's study in a database, with connections of its own each time."""

    def open_it(url: str) -> Opened:
        storage = open_storage(url)
        return open_study(storage, request.node.name), storage

    return open_it


@pytest.fixture
def pair(shared_url: str, opened: Opening) -> Iterator[tuple[Coordination, Coordination]]:
    """Two drivers of one study, each with its own connections."""
    (one, one_storage), (two, two_storage) = opened(shared_url), opened(shared_url)
    with leased(one, shared=True) as first, leased(two, shared=True) as second:
        yield (
            Coordination(one, one_storage, token=first.token),
            Coordination(two, two_storage, token=second.token),
        )


def add_trial(study: optuna.Study, value: float) -> None:
    trial = study.ask()
    trial.suggest_int("width", 1, 9)
    trial.set_user_attr("progress", LONG)
    trial.report(value, 1)
    study.tell(trial, value)


def start(record: Record) -> int:
    trial = record.next_trial()
    assert trial is not None
    return trial.number


def plain(trials: list[FrozenTrial]) -> list[Any]:
    """What can be compared; NaN is not itself."""
    return [
        (t.number, t.state, t.params, t.intermediate_values, t.values)
        + (json.dumps(t.user_attrs, sort_keys=True),)
        for t in trials
    ]


def reveals(text: str) -> bool:
    return "s3cret" in text or PASSWORD in text or ENCODED in text


# Any database


def test_a_study_is_recorded_and_found_again(url: str, opened: Opening) -> None:
    for value in (1.0, 2.0):
        add_trial(opened(url)[0], value)
    study, storage = opened(url)
    study.set_user_attr("fingerprint", LONG)
    assert storage.shared != url.startswith("sqlite")
    again, _ = opened(SYNONYMS.get(url.partition(":")[0], "sqlite") + url[url.index(":") :])
    assert again.user_attrs == {"fingerprint": LONG}
    trials = again.get_trials()
    assert [trial.value for trial in trials] == [1.0, 2.0]
    assert trials[1].intermediate_values == {1: 2.0}
    assert trials[1].user_attrs == {"progress": LONG}
    assert trials[1].params == study.trials[1].params


def test_what_the_driver_knows_is_what_is_stored(
    url: str, opened: Opening, space: Space, record_on: RecordOn, result_of: ResultOf
) -> None:
    study, _ = opened(url)
    record = record_on(study, space)
    numbers = [start(record) for _ in range(6)]
    for number in numbers:
        record.report(number, result_of({100: 2.0}))
        record.report(number, result_of({100: 2.0, 200: float("nan"), 300: 1.0 + number}))
    record.complete(0, 1.0, sequences=[1.0, 2.0])
    record.stop_early(1)
    record.fail(2, "broken")
    record.lost(3, "killed")
    assert start(record) == 6
    assert plain(record.trials()) == plain(study.get_trials())
    record.queue.release()
    known = record.trials()
    assert plain(known) == plain(study.get_trials()) == plain(opened(url)[0].get_trials())
    assert known[1].intermediate_values == {100: 2.0, 300: 2.0}
    assert known[1].user_attrs["kl"] == 2.0 and known[1].user_attrs["tokens"] == 300


# Servers: connections break, and several drivers share a study


def test_drivers_that_begin_at_the_same_moment_find_one_study(
    server: Server, opened: Opening
) -> None:
    url, together = server.database(), threading.Barrier(4)

    def begin() -> int:
        together.wait()
        return opened(url)[0]._study_id

    with ThreadPoolExecutor(4) as pool:
        assert len({each.result() for each in [pool.submit(begin) for _ in range(4)]}) == 1


@pytest.mark.parametrize("wrong", ["password", "database", "port"])
def test_what_cannot_be_opened_is_one_sentence_without_the_password(
    server: Server, shared_url: str, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "password": (ENCODED, ENCODED + "x"),
        "database": ("/studies", "/nothing"),
        "port": (str(server.port), "1"),
    }
    url = shared_url.replace(*changes[wrong])
    with pytest.raises(SearchError, match=f"{USER}:\\*\\*\\*@127.0.0.1.*cannot be used") as caught:
        open_storage(url)
    text = str(caught.value)
    assert "\n" not in text and caught.value.__cause__ is None
    assert not any(reveals(part) for part in (text, shown(url), *capfd.readouterr()))


def test_dropped_connections_are_survived_between_and_within_calls(
    server: Server,
    shared_url: str,
    opened: Opening,
    space: Space,
    record_on: RecordOn,
    result_of: ResultOf,
) -> None:
    study, storage = opened(shared_url)
    add_trial(study, 1.0)
    assert server.drop_connections() > 0
    coordination = Coordination(study, storage, token="driver")
    record = record_on(study, space, coordination=coordination, sampler=SamplerSettings("random"))
    dropping = threading.Thread(
        target=lambda: [(server.drop_connections(), time.sleep(0.1)) for _ in range(5)]
    )
    dropping.start()
    while dropping.is_alive() or record.finished() < 2:
        number = start(record)
        for kls in ({100: 2.0}, {100: 2.0, 200: 1.0}):
            record.report(number, result_of(kls))
        record.complete(number, 1.0, sequences=[1.0])
    dropping.join()
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert all(trial.intermediate_values == {100: 2.0, 200: 1.0} for trial in study.trials[1:])
    assert plain(record.trials()) == plain(study.trials)


def test_a_server_may_be_away_for_a_while_but_not_for_good(
    server: Server, shared_url: str, opened: Opening
) -> None:
    study, storage = opened(shared_url)
    add_trial(study, 1.0)
    server.stop()
    back = threading.Timer(0.3, server.start)
    back.start()
    add_trial(study, 2.0)
    back.join()
    assert [trial.value for trial in study.get_trials()] == [1.0, 2.0]
    server.stop()
    storage.patience.seconds = 0.3
    with pytest.raises(SearchStopped, match="does not answer any more: .*refused") as caught:
        add_trial(study, 3.0)
    assert not reveals(str(caught.value)) and "\n" not in str(caught.value)
    server.start()
    add_trial(study, 3.0)
    assert [trial.value for trial in study.get_trials()] == [1.0, 2.0, 3.0]


def test_a_second_driver_waits_for_its_turn(pair: tuple[Coordination, Coordination]) -> None:
    first, second = pair
    order = []

    def wait() -> None:
        with second.exclusive():
            order.append("second")

    with first.exclusive(), first.exclusive():
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["first", "second"]


def test_a_turn_ends_with_an_exception_and_with_the_connection(
    pair: tuple[Coordination, Coordination], server: Server
) -> None:
    first, second = pair
    with pytest.raises(KeyboardInterrupt), first.exclusive():
        raise KeyboardInterrupt
    with first.exclusive():
        server.drop_connections()
        with second.exclusive():
            pass


def test_a_role_has_one_driver_until_that_one_is_gone(shared_url: str, opened: Opening) -> None:
    study, storage = opened(shared_url)
    with leased(study, shared=True) as heir:
        with leased(study, shared=True) as first:
            sides = [Coordination(*opened(shared_url), token=first.token) for _ in range(2)]
            sides += [Coordination(*opened(shared_url), token=heir.token) for _ in range(2)]
            granted: list[str] = []
            together = threading.Barrier(len(sides))

            def claim(side: Coordination) -> None:
                together.wait()
                if side.claim("report"):
                    granted.append(side.token)

            threads = [threading.Thread(target=claim, args=(side,)) for side in sides]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert len(granted) == 2 and len(set(granted)) == 1, "a driver keeps what it has"
            assert Coordination(study, storage, token=first.token).claim("other")
            holder = sides[0].held_by("report")
            assert holder is not None and holder.token == granted[0]
            loser = sides[-1] if granted[0] == first.token else sides[0]
            assert not loser.claim("report")
        assert Coordination(study, storage, token=heir.token).claim("other"), "the first is gone"
        assert sides[0].held_by("nothing") is None


def test_a_trial_is_abandoned_once_its_driver_is_gone(shared_url: str, opened: Opening) -> None:
    study, storage = opened(shared_url)
    with leased(study, shared=True) as first:
        one = Coordination(study, storage, token=first.token)
        with leased(study, shared=True) as second:
            study.ask().set_user_attr("driver", second.token)
            assert not one.abandoned(study.get_trials())
        assert [t.state for t in one.abandoned(study.get_trials())] == [TrialState.RUNNING]
