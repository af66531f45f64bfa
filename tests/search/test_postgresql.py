"""A study on a real PostgreSQL server, which may be restarted or gone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import SearchError, SearchStopped
from search.storage import open_storage
from search.storage_url import shown
from tests.postgresql import ENCODED, PASSWORD, USER, Server, postgresql, running_server

__all__ = ["postgresql"]


def open_named(url: str) -> optuna.Study:
    storage = open_storage(url)
    return optuna.create_study(study_name="study", storage=storage, load_if_exists=True)


def add_trial(study: optuna.Study, value: float) -> None:
    trial = study.ask()
    trial.suggest_int("width", 1, 9)
    trial.set_user_attr("mark", value)
    trial.report(value, 1)
    study.tell(trial, value)


def reveals(text: str) -> bool:
    return "s3cret" in text or PASSWORD in text or ENCODED in text


def test_trials_are_recorded_and_found_again(postgresql: Server) -> None:
    url = postgresql.database()
    for value in (1.0, 2.0):
        add_trial(open_named(url), value)
    trials = open_named(url.replace("postgresql:", "postgresql+psycopg2:")).get_trials()
    assert [trial.value for trial in trials] == [1.0, 2.0]
    assert [trial.user_attrs["mark"] for trial in trials] == [1.0, 2.0]
    assert trials[0].intermediate_values == {1: 1.0}


def test_drivers_that_begin_at_the_same_moment_find_one_study(postgresql: Server) -> None:
    for _ in range(3):
        url, together = postgresql.database(), threading.Barrier(4)

        def begin(url: str = url, together: threading.Barrier = together) -> int:
            together.wait()
            return open_named(url)._study_id

        with ThreadPoolExecutor(4) as pool:
            assert len({each.result() for each in [pool.submit(begin) for _ in range(4)]}) == 1


@pytest.mark.parametrize("wrong", ["password", "database", "port"])
def test_what_cannot_be_opened_is_one_sentence_without_the_password(
    postgresql: Server, wrong: str, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "password": (ENCODED, ENCODED + "x"),
        "database": ("/studies", "/nothing"),
        "port": (str(postgresql.port), "1"),
    }
    url = postgresql.database().replace(*changes[wrong])
    with pytest.raises(SearchError, match=f"{USER}:\\*\\*\\*@127.0.0.1.*cannot be used") as caught:
        open_storage(url)
    text = str(caught.value)
    assert "\n" not in text and caught.value.__cause__ is None
    assert not any(reveals(part) for part in (text, shown(url), *capfd.readouterr()))


def test_dropped_connections_are_survived_between_and_within_calls(postgresql: Server) -> None:
    study = open_named(postgresql.database())
    add_trial(study, 1.0)
    assert postgresql.drop_connections() > 0
    add_trial(study, 2.0)

    def drop() -> None:
        for _ in range(4):
            time.sleep(0.1)
            postgresql.drop_connections()

    thread = threading.Thread(target=drop)
    thread.start()
    value = 2.0
    while thread.is_alive() or value < 5.0:
        value += 1.0
        add_trial(study, value)
    thread.join()
    finished = [t.value for t in study.get_trials() if t.state == TrialState.COMPLETE]
    assert finished == [float(number) for number in range(1, int(value) + 1)]


def test_a_server_may_be_away_for_a_while_but_not_for_good() -> None:
    with running_server() as server:
        storage = open_storage(server.database())
        study = optuna.create_study(study_name="study", storage=storage)
        add_trial(study, 1.0)
        server.stop()
        back = threading.Timer(1.0, server.start)
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
