"""Mutual exclusion and roles for several drivers of one study, through its database server.

On PostgreSQL and MySQL; a no-op for SQLite, which has one writer and so one driver.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from common.errors import SearchStopped
from search.database.attributes import ARCHITECTURE, DRIVER
from search.database.lease import Driver, drivers
from search.database.optuna_internals import study_id
from search.database.storage import PatientStorage
from search.database.trial_facts import FINISHED_STATES

ROLES = Table(
    "espalier_duties",
    MetaData(),
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("duty", String(64), primary_key=True),
    Column("holder", String(64)),
)
"""One row per role in a study, with the token of the driver that has it. Optuna's attributes have
no compare-and-set; rows that are locked while they are read have. Names as in the studies of older
versions."""
MUTEX = "turn"
"""The role whose row is locked by the driver that excludes all others."""
MUTEX_SECONDS = 600.0
"""How long a driver waits for the mutex; no other holds it so long, unless it is suspended."""
SESSIONS = {
    "postgresql": (
        "SET LOCAL tcp_keepalives_idle = 30",
        "SET LOCAL tcp_keepalives_interval = 10",
        "SET LOCAL tcp_keepalives_count = 3",
        "SET LOCAL lock_timeout = 5000",
    ),
    "mysql": (
        "SET SESSION wait_timeout = 300",
        "SET SESSION innodb_lock_wait_timeout = 5",
    ),
}
"""Of a session that locks a row: PostgreSQL ends its lock within a minute of a vanished machine
(seconds, seconds, tries), MySQL once the session has said nothing for five; and it waits five
seconds for the lock of another."""


class Coordination:
    """One driver's side of a study that others may drive too."""

    def __init__(self, study: optuna.Study, storage: RDBStorage | None, *, token: str):
        """`storage` is the study's own, from `open_storage`; `token` is the driver's."""
        self.study, self.token = study, token
        self.storage: PatientStorage | None = None
        self._thread = threading.local()
        if isinstance(storage, PatientStorage) and storage.shared:
            self.storage = storage
            self._make_rows(storage)

    @property
    def shared(self) -> bool:
        """Whether other drivers are allowed."""
        return self.storage is not None

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Inside, no other driver is inside; the end of a driver, however it comes, lets others in.

        For what must see all trials and then add one. Raises SearchStopped where another driver is
        inside for ten minutes. If the database server itself is started anew meanwhile, another
        driver may enter: see `surplus`.
        """
        if self.storage is None or getattr(self._thread, "inside", False):
            yield
            return
        connection = self._locked(self.storage)
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False
            with contextlib.suppress(SQLAlchemyError):  # broken: then the lock is gone too
                connection.rollback()
            connection.close()

    def claim(self, role: str) -> bool:
        """Whether this driver has the role now: if nobody had it, or one that is gone."""
        storage = self.storage
        if storage is None:
            return True
        self._make_row(storage, role)

        def settle() -> bool:
            with storage.engine.begin() as connection:
                holder = connection.execute(self._row(role).with_for_update()).scalar_one()
                if holder not in (None, self.token) and holder in drivers(self.study):
                    return False
                where = (ROLES.c.study_id == study_id(self.study)) & (ROLES.c.duty == role)
                connection.execute(update(ROLES).where(where).values(holder=self.token))
                return True

        return storage.patiently(settle)

    def held_by(self, role: str) -> Driver | None:
        """The live driver that has the role; None also where the study has one driver only."""
        storage = self.storage
        if storage is None:
            return None

        def read() -> Any:
            with storage.engine.connect() as connection:
                return connection.execute(self._row(role)).scalar_one_or_none()

        return drivers(self.study).get(storage.patiently(read))

    def abandoned(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The running trials among `trials` that no live driver has."""
        live = {self.token} | (drivers(self.study).keys() if self.shared else set())
        return [
            trial
            for trial in trials
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(DRIVER) not in live
        ]

    def open_places(self, trials: list[FrozenTrial], target: int) -> int:
        """How many trials may still be started so that `target` finish; never negative.

        To be asked inside `exclusive`, which must also hold the start.
        """
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        finished = sum(trial.state in FINISHED_STATES for trial in trials)
        return max(0, target - finished - running + len(self.abandoned(trials)))

    def surplus(self, number: int, target: int) -> bool:
        """Whether trial `number`, which was just started, must be withdrawn.

        So where earlier trials are `target` without it, or one of them has its architecture. That
        happens only if the connection broke that kept other drivers out of `exclusive`. Trials get
        their number and their architecture in one step, so of two drivers the later one sees it.
        """
        trials = self.study.get_trials(deepcopy=False)
        shape = trials[number].user_attrs[ARCHITECTURE]
        without = {trial.number for trial in self.abandoned(trials)}
        earlier = [
            trial.user_attrs.get(ARCHITECTURE)
            for trial in trials[:number]
            if trial.state != TrialState.FAIL and trial.number not in without
        ]
        return len(earlier) >= target or shape in earlier

    def _row(self, role: str) -> Any:
        return select(ROLES.c.holder).where(
            ROLES.c.study_id == study_id(self.study), ROLES.c.duty == role
        )

    def _make_rows(self, storage: PatientStorage) -> None:
        def make_table() -> None:
            try:
                ROLES.create(storage.engine, checkfirst=True)
            except (IntegrityError, ProgrammingError):
                ROLES.create(storage.engine, checkfirst=True)  # another driver was first

        storage.patiently(make_table)
        self._make_row(storage, MUTEX)

    def _make_row(self, storage: PatientStorage, role: str) -> None:
        def make() -> None:
            with contextlib.suppress(IntegrityError), storage.engine.begin() as connection:
                if connection.execute(self._row(role)).first() is None:
                    values = {"study_id": study_id(self.study), "duty": role, "holder": None}
                    connection.execute(insert(ROLES).values(**values))

        storage.patiently(make)

    def _locked(self, storage: PatientStorage) -> Connection:
        """A connection whose transaction locks the row of the mutex."""
        end = time.monotonic() + MUTEX_SECONDS
        while True:
            connection = storage.patiently(storage.engine.connect)
            try:
                for statement in SESSIONS.get(storage.engine.dialect.name, ()):
                    connection.execute(text(statement))
                connection.execute(self._row(MUTEX).with_for_update())
                return connection
            except (OperationalError, InterfaceError) as problem:
                connection.close()
                if time.monotonic() > end:
                    raise SearchStopped(
                        f"another driver of the study {self.study.study_name} has kept all others "
                        f"waiting for {MUTEX_SECONDS / 60:.0f} minutes; end it if it is suspended, "
                        "and start the same command again"
                    ) from problem
