"""The database of a study: one clear sentence where it cannot be opened or used."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy import Text, create_engine, inspect, text
from sqlalchemy.dialects.mysql import LONGTEXT, MEDIUMTEXT
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from common.errors import SearchError, SearchStopped
from search.database import optuna_internals
from search.database.optuna_internals import ATTRIBUTE_TABLES, CALLED_BY_CACHE, STORAGE_LOGGER
from search.database.patience import Patience, never, reason_of
from search.database.storage_url import VARIABLE, connecting, remedy, shown

LOGGER = logging.getLogger(__name__)
FIRST_STARTS = 6
"""How often the tables of a new database are looked for that another driver makes meanwhile."""
BUSY_SECONDS = 1.0
"""How long SQLite itself waits for a lock; no signal is answered within."""
KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""In seconds, the last a count: notices within a minute that a PostgreSQL server has vanished."""
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
"""In seconds: the same for MySQL."""
OPTIONS: dict[str, Mapping[str, float]] = {
    "sqlite+pysqlite": {"timeout": BUSY_SECONDS},
    "postgresql+psycopg2": KEEPALIVE,
    "postgresql+psycopg": KEEPALIVE,
    "mysql+pymysql": TIMEOUTS,
    "mysql+mysqldb": TIMEOUTS,
}
"""Of a connection, by driver; those of the URL go before."""
TRIED_AGAIN = (
    "create_new_study",
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial",
    "get_trial_param",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial_id_from_study_id_trial_number",
    *CALLED_BY_CACHE,
)
"""Optuna's methods that may be called again after they failed. What they write can be written
twice."""
T = TypeVar("T")


class PatientStorage(RDBStorage):
    """A study in a database, which may be busy, drop connections or be started anew meanwhile.

    Optuna tries again only for new trials.
    """

    def __init__(self, url: str, patience: Patience, *, engine_options: dict[str, Any]):
        self.patience = patience
        super().__init__(url, engine_kwargs=engine_options)

    @property
    def shared(self) -> bool:
        """Whether several drivers may work on its studies; SQLite has one writer."""
        return str(self.engine.dialect.name) != "sqlite"

    def patiently(self, call: Callable[[], T]) -> T:
        """Result of `call`; see `Patience.wait`."""
        return self.patience.wait(call)

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        """As Optuna's; a state that was written before the connection broke is not an error."""
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if attempts > 1 and self.get_trial(trial_id).state == state:
                    return True
                raise

        return self.patiently(attempt)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return call


for _name in TRIED_AGAIN:
    setattr(PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(
    url: str,
    *,
    closing: Callable[[], bool] = never,
    existing: bool = False,
) -> PatientStorage:
    """Connect. Raises SearchError where the database cannot be reached or used, or, where it is to
    be an `existing` one, holds no study; nothing is made then.

    A database may be busy or away for a minute without harm to the study, which is logged;
    once the search is `closing`, for some seconds. Raises SearchStopped where SQLite is busy for
    longer.
    """
    found = connecting(url)
    if found.remark:
        LOGGER.info(found.remark)
    if not existing:
        _make_folder(found.url)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    # It warns of every read that a busy database refuses, which is tried again.
    logging.getLogger(STORAGE_LOGGER).setLevel(logging.ERROR)
    try:
        if existing:
            _require_tables(found.url)
        return _opened(found.url, Patience(found.url, closing))
    except (SearchStopped, SearchError):
        raise
    except ImportError:
        raise SearchError(
            f"the database {shown(url)} needs a driver that is not installed: {remedy(found.url)}"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as problem:
        raise SearchError(
            f"the database {shown(url)} cannot be used: {reason_of(problem, found.url)}; check the "
            "URL in --storage or ESPALIER_STORAGE, and that the database answers"
        ) from None
    finally:
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def database_url(study: optuna.Study) -> str:
    """Where a study is kept, without a password."""
    database = optuna_internals.database_of(study)
    if database is None:
        return "in memory"
    return shown(database.engine.url.render_as_string(hide_password=False))


def _make_folder(url: URL) -> None:
    """Of an SQLite file. Raises SearchError where it cannot be made."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return
    parent = Path(url.database).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise SearchError(
            f"the folder {parent} of the database cannot be made ({problem.strerror}); choose "
            "another --storage"
        ) from problem


def _require_tables(url: URL) -> None:
    """Raises SearchError where there is no database, or none that holds studies."""
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and not file.startswith("file:") and not Path(file).is_file():
        raise SearchError(
            f"there is no database {file}; give --storage or --workspace of a study, or set "
            f"{VARIABLE} where its database is another"
        )
    engine = create_engine(url)
    try:
        if not inspect(engine).has_table("studies"):
            raise SearchError(
                f"the database {shown(url.render_as_string(hide_password=False))} holds no study; "
                "give --storage or --workspace of one"
            )
    finally:
        engine.dispose()


def _opened(url: URL, patience: Patience) -> PatientStorage:
    """The storage, made again where another driver was making the same tables at that moment."""
    known = OPTIONS.get(f"{url.get_backend_name()}+{url.get_driver_name()}", {})
    options = {
        "pool_pre_ping": True,
        "connect_args": {name: value for name, value in known.items() if name not in url.query},
    }
    exact = url.render_as_string(hide_password=False)
    template = exact.replace("{", "{{").replace("}", "}}")  # Optuna fills in its version

    def attempt() -> PatientStorage:
        storage = PatientStorage(template, patience, engine_options=dict(options))
        _widen(storage.engine)
        return storage

    for start in range(1, FIRST_STARTS):
        try:
            return patience.wait(attempt, opening=True)
        except (IntegrityError, ProgrammingError, OperationalError) as problem:
            if not isinstance(problem, IntegrityError) and "already exists" not in str(problem):
                raise
            time.sleep(0.2 * start)
    return patience.wait(attempt, opening=True)


def _widen(engine: Engine) -> None:
    """Have MySQL take values of any length, as the others do; its TEXT ends at 64 KiB."""
    if engine.dialect.name != "mysql":
        return
    for table in ATTRIBUTE_TABLES:
        (column,) = [c for c in inspect(engine).get_columns(table) if c["name"] == "value_json"]
        kind = column["type"]
        if isinstance(kind, Text) and not isinstance(kind, MEDIUMTEXT | LONGTEXT):
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {table} MODIFY value_json LONGTEXT"))
