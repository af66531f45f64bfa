"""An SQLite file that others lock, and what a database does that does not pass."""

import contextlib
import inspect
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from common.errors import SearchStopped
from search.database import patience, storage
from search.database.coordination import Coordination
from search.database.lease import leased
from search.database.optuna_internals import storage_of
from search.database.storage import PatientStorage, open_storage
from search.database.trial_cache import TrialLog, write_together

PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""
Lock = Callable[[Path], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def transaction(path: Path, *statements: str) -> Iterator[None]:
    """What another program has begun and not ended."""
    other = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
    try:
        for statement in statements:
            other.execute(statement).fetchone()
        yield
    finally:
        other.close()


def exclusive(path: Path) -> contextlib.AbstractContextManager[None]:
    return transaction(path, "BEGIN EXCLUSIVE")


def uncommitted(path: Path) -> contextlib.AbstractContextManager[None]:
    return transaction(path, "BEGIN IMMEDIATE", "CREATE TABLE other (x)")


def reader(path: Path) -> contextlib.AbstractContextManager[None]:
    """As a backup (`.dump`, `VACUUM INTO`), which others may read beside, but not write."""
    return transaction(path, "BEGIN", "SELECT * FROM alembic_version")


def reader_and_writer(path: Path) -> contextlib.ExitStack:
    """A writer that waits for a reader lets no new reader in either."""
    stack = contextlib.ExitStack()
    stack.enter_context(reader(path))
    writer = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    stack.callback(writer.close)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("CREATE TABLE other (x)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        writer.execute("COMMIT")
    return stack


def whole_file(path: Path) -> contextlib.AbstractContextManager[None]:
    """As a viewer that keeps the file to itself between its transactions."""
    write = ("CREATE TABLE IF NOT EXISTS other (x)", "INSERT INTO other VALUES (1)")
    return transaction(path, "PRAGMA locking_mode = EXCLUSIVE", *write)


LOCKS = (exclusive, uncommitted, reader, reader_and_writer, whole_file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


@pytest.fixture
def opened(path: Path) -> PatientStorage:
    """On a file that SQLite itself hardly waits for."""
    return open_storage(f"sqlite:///{path}?timeout=0.01")


@pytest.fixture
def study(opened: PatientStorage) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=opened)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set whenever something waits before it tries again, which is soon."""
    found, sleep = threading.Event(), time.sleep

    def brief(seconds: float) -> None:
        found.set()
        sleep(min(seconds, 0.01))

    monkeypatch.setattr(time, "sleep", brief)
    return found


def through(lock: Lock, path: Path, refused: threading.Event, work: Callable[[], Any]) -> bool:
    """Do the work on a locked file, which is let go once it was refused; False if it never was."""
    refused.clear()
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()), daemon=True)
    with lock(path):
        thread.start()
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and not refused.wait(0.01):
            assert time.monotonic() < end
    thread.join(PATIENCE)
    assert result, "it raised, or hangs"
    return refused.is_set()


@pytest.mark.parametrize("lock", LOCKS)
def test_whatever_is_locked_meanwhile_nothing_is_lost_or_written_twice(
    lock: Lock, study: optuna.Study, path: Path, refused: threading.Event
) -> None:
    log, backend = TrialLog(study), storage_of(study)

    def in_a_file(work: Callable[[], Any]) -> Callable[[], bool]:
        return lambda: through(lock, path, refused, work)

    distributions: dict[str, Any] = {"width": optuna.distributions.IntDistribution(1, 9)}
    added = create_trial(state=TrialState.RUNNING, params={"width": 3}, distributions=distributions)
    trial: list[optuna.Trial] = []
    writes = [
        lambda: log.add(added) and True,
        lambda: log.write(0, {"progress": [1, 2]}, curve={1: 0.5}) or True,
        lambda: log.end(0, [0.25]) or True,
        lambda: trial.append(study.ask()) or True,
        lambda: trial[0].suggest_int("width", 1, 9),
        lambda: trial[0].set_user_attr("mark", 1) or True,
        lambda: trial[0].report(2.0, 1) or True,
        lambda: write_together(study, trial[0], attributes={"both": 2}, values={2: 1.0}) or True,
        lambda: study.tell(trial[0], state=TrialState.FAIL),
        lambda: study.set_user_attr("fingerprint", {"a": 1}) or True,
    ]
    reads = [
        lambda: study.user_attrs,
        lambda: study.get_trials(),
        lambda: log.read() or True,
        lambda: optuna.load_study(study_name="s", storage=backend),
    ]
    assert all(in_a_file(work)() for work in writes), "the lock did not lock"
    found = [in_a_file(work)() for work in reads]
    assert all(found) or lock in (uncommitted, reader)
    first, second = study.get_trials()
    assert (first.value, first.params["width"], first.state) == (0.25, 3, TrialState.COMPLETE)
    assert first.user_attrs == {"progress": [1, 2]} and first.intermediate_values == {1: 0.5}
    assert second.state == TrialState.FAIL and second.user_attrs == {"mark": 1, "both": 2}
    assert second.intermediate_values == {1: 2.0, 2: 1.0}
    assert study.user_attrs == {"fingerprint": {"a": 1}}


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_that_is_locked_at_the_start_is_waited_for(
    is_new: bool, path: Path, refused: threading.Event
) -> None:
    url = f"sqlite:///{path}?timeout=0.01"
    if not is_new:
        optuna.create_study(study_name="s", storage=open_storage(url))

    def start() -> optuna.Study:
        return optuna.create_study(study_name="s", storage=open_storage(url), load_if_exists=True)

    assert through(exclusive, path, refused, start)
    assert optuna.load_study(study_name="s", storage=open_storage(url)).trials == []


def test_a_file_that_stays_locked_is_one_sentence_and_goes_on_later(
    study: optuna.Study, opened: PatientStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.patience.seconds = 0.05
    trial = study.ask()
    with exclusive(path):
        for write in (lambda: study.tell(trial, 1.0), lambda: study.set_user_attr("mark", 1)):
            with pytest.raises(SearchStopped) as caught:
                write()
            text = str(caught.value)
            assert f"the database file {path} is locked by another program" in text
            assert "(database is locked)" in text and "start the same command again" in text
            assert "\n" not in text and caught.value.__cause__ is None
        monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
        with pytest.raises(SearchStopped, match="is locked by another program"):
            open_storage(f"sqlite:///{path}?timeout=0.01")
    study.tell(trial, 1.0)
    assert [trial.value for trial in study.get_trials()] == [1.0]


def moved(path: Path, _: Any) -> None:
    path.rename(path.with_name("elsewhere.db"))


def overwritten(path: Path, _: Any) -> None:
    path.write_bytes(b"no database any more" * 1000)


def damaged(path: Path, _: Any) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


def full(_: Path, opened: PatientStorage) -> None:
    @event.listens_for(opened.engine, "checkout")
    def limit(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (moved, "cannot be used: attempt to write a readonly database; .* make the file and its"),
        (overwritten, "cannot be used: file is not a database; put a copy of it in its place"),
        (damaged, "cannot be used: database disk image is malformed; put a copy"),
        (full, "cannot be used: database or disk is full; .*: make room on its disk"),
    ],
)
def test_what_does_not_pass_ends_at_once(
    harm: Callable[[Path, Any], None],
    reason: str,
    study: optuna.Study,
    opened: PatientStorage,
    path: Path,
    refused: threading.Event,
) -> None:
    harm(path, opened)
    with pytest.raises(SearchStopped, match=reason) as caught:
        study.set_user_attr("mark", "x" * 100_000)
    assert not refused.is_set(), "it was waited for"
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, "disk I/O error"),
        (sqlite3.SQLITE_CANTOPEN_FULLPATH, "unable to open database file"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "database is locked"),
        (sqlite3.SQLITE_PROTOCOL, "locking protocol"),
    ],
)
def test_what_a_disk_of_a_network_does_may_pass(
    code: int, reason: str, study: optuna.Study, opened: PatientStorage, refused: threading.Event
) -> None:
    failing = [True, True]

    @event.listens_for(opened.engine, "do_execute")
    def fail(*_: Any) -> None:
        if failing and failing.pop():
            problem = sqlite3.OperationalError(reason)
            problem.sqlite_errorcode = code
            raise problem

    study.set_user_attr("mark", 1)
    assert refused.is_set() and study.user_attrs == {"mark": 1}
    failing += [True] * 1000
    opened.patience.seconds = 0.05
    with pytest.raises(SearchStopped, match=f"{reason}.*what it recorded is kept"):
        study.set_user_attr("mark", 2)


def test_who_waits_is_told(
    study: optuna.Study,
    path: Path,
    refused: threading.Event,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study.set_user_attr("mark", 0)
    assert lines == []
    monkeypatch.setattr(patience, "NOTICE_SECONDS", 0.0)
    through(exclusive, path, refused, lambda: study.set_user_attr("mark", 1) or True)
    waiting, over = lines
    assert waiting.endswith("(database is locked); waiting up to 60 s for it")
    assert over.startswith("the database answers after")


def test_an_end_that_was_asked_for_is_hardly_delayed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "CLOSING_SECONDS", 0.05)
    closing: list[int] = []
    opened = open_storage(f"sqlite:///{path}?timeout=0.01", closing=lambda: bool(closing))
    study = optuna.create_study(study_name="s", storage=opened)
    caught: list[Exception] = []

    def write() -> None:
        try:
            study.set_user_attr("mark", 1)
        except SearchStopped as problem:
            caught.append(problem)

    thread = threading.Thread(target=write, daemon=True)
    with exclusive(path):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it did not wait"
        closing.append(1)  # as a signal does
        thread.join(PATIENCE)
    assert caught
    study.set_user_attr("mark", 2)


def test_only_the_drivers_own_waiting_in_vain_is_the_end(
    study: optuna.Study, opened: PatientStorage, path: Path
) -> None:
    opened.patience.seconds = 0.05

    def renew() -> None:
        with contextlib.suppress(SearchStopped):
            study.set_user_attr("lease", 1)

    with exclusive(path):
        thread = threading.Thread(target=renew)
        thread.start()
        thread.join(PATIENCE)
        assert opened.patience.given_up is None
        with pytest.raises(SearchStopped):
            study.set_user_attr("mark", 1)
        assert opened.patience.given_up is not None


def test_a_patient_file_still_has_one_driver(study: optuna.Study, opened: PatientStorage) -> None:
    assert not opened.shared and not Coordination(study, opened, token="me").shared
    with (
        leased(study, shared=opened.shared),
        pytest.raises(ValueError, match="being driven"),
        leased(study, shared=opened.shared),
    ):
        pass


def test_no_method_of_optuna_is_forgotten() -> None:
    unused = {"record_heartbeat", "_get_stale_trial_ids", "remove_session"}
    touching = {
        name
        for name, method in inspect.getmembers(RDBStorage, inspect.isfunction)
        if "_create_scoped_session(" in inspect.getsource(method) and name not in unused
    }
    assert touching - {"set_trial_state_values"} <= set(storage.TRIED_AGAIN)


def test_what_is_tried_after_the_end_tells_how_long_was_waited(
    study: optuna.Study, opened: PatientStorage, path: Path
) -> None:
    opened.patience.seconds = 0.05
    with exclusive(path):
        with pytest.raises(SearchStopped):
            study.set_user_attr("mark", 1)
        opened.patience.given_up = 67.0
        with pytest.raises(SearchStopped, match="even after 67 s: a backup or a copy"):
            study.set_user_attr("mark", 2)
