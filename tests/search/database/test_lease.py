"""Who drives a study; a dead driver never stands in the way."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest

from common.errors import SearchError, SearchStopped
from search.database.attributes import LEASE
from search.database.lease import STALE_SECONDS, Driver, drivers, leased, locked

PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""


def hold(study: optuna.Study, age: float = 0.0, **changes: object) -> None:
    """The lease of another driver, renewed `age` seconds ago."""
    driver = dataclasses.replace(Driver.this(), **changes)  # type: ignore[arg-type]
    renewed = time.time() - age
    study.set_user_attr(LEASE + driver.token, {**dataclasses.asdict(driver), "renewed": renewed})


def test_a_live_driver_is_left_alone(study: optuna.Study) -> None:
    with leased(study) as driver:
        with (
            pytest.raises(SearchError, match=f"process {driver.pid} on {driver.host}"),
            leased(study),
        ):
            pass
        assert drivers(study) == {driver.token: driver}
    assert not drivers(study)
    with leased(study):
        pass


def test_an_exception_gives_the_lease_back(study: optuna.Study) -> None:
    with pytest.raises(KeyboardInterrupt), leased(study):
        raise KeyboardInterrupt
    with leased(study):
        pass


def test_a_dead_process_is_taken_over_at_once(study: optuna.Study) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    hold(study, pid=process.pid, started=started)
    with pytest.raises(SearchError), leased(study):
        pass
    process.communicate(b"\n")
    with leased(study):
        pass


def test_a_process_id_used_again_is_no_driver(study: optuna.Study) -> None:
    hold(study, started=Driver.this().started - 100)
    with leased(study):
        pass


def test_a_search_of_this_process_that_left_its_lease_is_gone(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = study.set_user_attr

    def locked_at_the_end(name: str, value: object) -> None:
        if value is None:
            raise SearchStopped("the database file is locked")
        write(name, value)

    monkeypatch.setattr(study, "set_user_attr", locked_at_the_end)
    with leased(study) as first:
        pass
    assert study.user_attrs[LEASE + first.token]
    with leased(study) as second:
        assert drivers(study).keys() == {second.token}


def test_a_boot_ends_a_driver(study: optuna.Study) -> None:
    hold(study, boot_id="before the machine was started again")
    with leased(study):
        pass


def test_another_machine_is_believed_until_it_is_silent(study: optuna.Study) -> None:
    hold(study, host="elsewhere", token="other", age=STALE_SECONDS / 2)
    with pytest.raises(SearchError, match="elsewhere"), leased(study):
        pass
    hold(study, host="elsewhere", token="other", age=STALE_SECONDS + 10)
    with leased(study):
        pass


def test_drivers_that_share_a_study_know_each_other(study: optuna.Study) -> None:
    hold(study, started=Driver.this().started - 100)
    with leased(study, shared=True) as first, leased(study, shared=True) as second:
        assert drivers(study).keys() == {first.token, second.token}
        with pytest.raises(SearchError), leased(study):
            pass
        assert drivers(study).keys() == {first.token, second.token}, "the refused one left a lease"
    assert not drivers(study)


def test_a_lease_is_renewed(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.database.lease.RENEW_SECONDS", 0.01)
    with leased(study) as driver:
        name = LEASE + driver.token
        before = study.user_attrs[name]["renewed"]
        end = time.monotonic() + PATIENCE
        while study.user_attrs[name]["renewed"] == before:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_second_lock_is_refused(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(SearchError, match="another driver is at work"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
