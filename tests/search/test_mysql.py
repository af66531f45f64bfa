"""A study on a real MariaDB server, which several drivers share, and which may be started anew."""

import threading

import optuna
import pytest
from optuna.trial import TrialState

from search.errors import SearchError
from search.lease import leased
from search.sharing import Coordination
from search.storage import PatientStorage, open_storage
from tests.mysql import mysql
from tests.postgresql import ENCODED, PASSWORD, Server

__all__ = ["mysql"]
PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""
LONG = "x" * 100_000
"""More than MySQL's TEXT holds."""


def open_named(url: str) -> tuple[optuna.Study, PatientStorage]:
    storage = open_storage(url)
    return optuna.create_study(study_name="s", storage=storage, load_if_exists=True), storage


def test_a_study_is_recorded_shared_and_survives_the_server(mysql: Server) -> None:
    url = mysql.database()
    (study, storage), (other, other_storage) = open_named(url), open_named(url)
    assert storage.shared
    study.set_user_attr("fingerprint", LONG)
    trial = study.ask()
    trial.suggest_int("width", 1, 9)
    trial.set_user_attr("progress", LONG)
    assert mysql.drop_connections() > 0
    trial.report(1.0, 1)
    mysql.stop()
    back = threading.Timer(0.3, mysql.start)
    back.start()
    study.tell(trial, 1.0)
    back.join()
    (found,) = open_named(url.replace("mysql:", "mariadb:"))[0].get_trials()
    assert found.value == 1.0 and found.user_attrs == {"progress": LONG}
    assert other.user_attrs["fingerprint"] == LONG

    with leased(study, shared=True) as first, leased(other, shared=True) as second:
        one = Coordination(study, storage, first.token)
        two = Coordination(other, other_storage, second.token)
        assert one.claim("report") and not two.claim("report")
        holder = two.held_by("report")
        assert holder is not None and holder.token == first.token
        order: list[str] = []

        def wait() -> None:
            with two.exclusive():
                order.append("second")

        with one.exclusive():
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
            order.append("first")
        thread.join(PATIENCE)
        assert order == ["first", "second"]
        running = other.ask()
        running.set_user_attr("driver", second.token)
        assert not one.abandoned(study.get_trials())
    assert [t.state for t in one.abandoned(study.get_trials())] == [TrialState.RUNNING]


def test_a_wrong_password_is_one_sentence_without_it(mysql: Server) -> None:
    with pytest.raises(SearchError, match="cannot be used: Access denied for user") as caught:
        open_storage(mysql.database().replace(ENCODED, ENCODED + "x"))
    text = str(caught.value)
    assert PASSWORD not in text and ENCODED not in text and "\n" not in text
