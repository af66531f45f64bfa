"""The database of a study: one clear sentence where it cannot be opened, no password in any."""

import functools
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
)

from search.errors import SearchError, SearchStopped

VARIABLE = "ESPALIER_STORAGE"
REMEDIES = {"postgresql": "-e '.[postgresql]' in Espalier's checkout", "mysql": "pymysql"}
"""What pip is to install for a kind of database."""
PATIENCE_SECONDS = 60.0
"""How long a database server may be away while a study goes on."""
FIRST_STARTS = 6
"""How often the tables of a new database are looked for that another driver makes meanwhile."""
T = TypeVar("T")
LOST = (OperationalError, InterfaceError, PendingRollbackError)
"""What a broken connection raises; the last where Optuna asks once more on the broken one."""
LIBPQ = ("psycopg2", "psycopg")
KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""In seconds, the last a count: notices within a minute that a PostgreSQL server has vanished."""
SECRET_FIELDS = ("password", "passwd", "sslpassword")
"""What a URL's query may carry besides the password before its host."""


def take_storage_url(given: str | None, workspace: Path) -> str:
    """The database URL from the setting, the environment or the workspace, in that order.

    The variable is removed from the environment, which every worker would inherit. Raises
    SearchError for a password among the settings: anyone can read a process's arguments.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if given is not None and _secrets(_parsed(given, "--storage")):
        raise SearchError(
            "--storage has a password, which every user of this machine could read in the process "
            f"list; put the URL into the environment variable {VARIABLE} instead"
        )
    url = given or from_environment or f"sqlite:///{(workspace / 'study.db').absolute()}"
    _parsed(url, "--storage" if given else VARIABLE)
    return url


def shown(url: str) -> str:
    """The URL without its password."""
    parsed = make_url(url).difference_update_query(SECRET_FIELDS)
    return parsed.render_as_string(hide_password=True)


def open_storage(url: str) -> RDBStorage:
    """Connect. Raises SearchError where the database cannot be reached or used.

    A database server may drop connections or be away for a minute without harm to the study.
    """
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database:
        parent = Path(parsed.database).absolute().parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise SearchError(
                f"the folder {parent} of the database cannot be made ({problem.strerror}); choose "
                "another --storage"
            ) from problem
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    storage_class = RDBStorage if kind == "sqlite" else PatientStorage
    try:
        parsed = _with_driver(parsed)
        exact = parsed.render_as_string(hide_password=False)
        storage = _made(lambda: storage_class(exact, engine_kwargs=_engine_options(parsed)))
    except ImportError:
        remedy = f"pip install {REMEDIES[kind]}" if kind in REMEDIES else "install it"
        raise SearchError(
            f"the database {shown(url)} needs a driver that is not installed: {remedy}"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as problem:
        raise SearchError(
            f"the database {shown(url)} cannot be used: {_reason(problem, parsed)}; check the URL "
            "in --storage or ESPALIER_STORAGE, and that the database answers"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return storage


def _made(storage: Callable[[], RDBStorage]) -> RDBStorage:
    """The storage, made again where another driver was making the same tables at that moment."""
    for attempt in range(1, FIRST_STARTS):
        try:
            return storage()
        except (IntegrityError, ProgrammingError) as problem:
            if isinstance(problem, ProgrammingError) and "already exists" not in str(problem):
                raise
            time.sleep(0.2 * attempt)
    return storage()


def _with_driver(url: URL) -> URL:
    """With the driver of the extra, where the URL names none; SQLAlchemy's own choice varies."""
    if url.drivername == "postgresql" and importlib.util.find_spec(LIBPQ[0]):
        return url.set(drivername=f"postgresql+{LIBPQ[0]}")
    return url


def _engine_options(url: URL) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername in [f"postgresql+{driver}" for driver in LIBPQ]:
        options["connect_args"] = {k: v for k, v in KEEPALIVE.items() if k not in url.query}
    return options


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, tried again while the database server is away."""

    @functools.wraps(method)
    def call(self: "PatientStorage", *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return call


class PatientStorage(RDBStorage):
    """A study on a database server, which may drop connections or be started anew meanwhile.

    Optuna tries again only for new trials. What it writes can be written twice, except the end of a
    trial; see `set_trial_state_values`.
    """

    patience = PATIENCE_SECONDS
    given_up = False
    """Once it stayed away for so long, each further call is tried once, until one succeeds."""

    def patiently(self, call: Callable[[], T]) -> T:
        """What `call` gives, tried again while the server is away.

        Raises SearchStopped when it stays away for longer than `patience` seconds.
        """
        end = time.monotonic() + (0.0 if self.given_up else self.patience)
        pause = 0.1
        while True:
            try:
                result = call()
            except (StorageInternalError, *LOST) as problem:
                cause = problem.__cause__ if isinstance(problem, StorageInternalError) else problem
                if not isinstance(cause, LOST):
                    raise
                if time.monotonic() + pause > end:
                    self.given_up = True
                    raise self.stopped(problem) from None
            else:
                self.given_up = False
                return result
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def stopped(self, problem: Exception) -> SearchStopped:
        """That the server does not answer any more, and why."""
        return SearchStopped(
            f"the database {shown(self.url)} does not answer any more: "
            f"{_reason(problem, make_url(self.url))}; what it recorded is kept: start the same "
            "command again when it answers"
        )

    create_new_study = _patient(RDBStorage.create_new_study)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patient(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _patient(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _patient(RDBStorage.get_study_name_from_id)
    get_study_directions = _patient(RDBStorage.get_study_directions)
    get_study_user_attrs = _patient(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _patient(RDBStorage.get_study_system_attrs)
    get_all_studies = _patient(RDBStorage.get_all_studies)
    set_trial_intermediate_value = _patient(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _patient(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _patient(RDBStorage.set_trial_system_attr)
    get_trial = _patient(RDBStorage.get_trial)
    get_best_trial = _patient(RDBStorage.get_best_trial)
    get_trial_id_from_study_id_trial_number = _patient(
        RDBStorage.get_trial_id_from_study_id_trial_number
    )
    _create_new_trial = _patient(RDBStorage._create_new_trial)
    _get_trials = _patient(RDBStorage._get_trials)
    _set_trial_param = _patient(RDBStorage._set_trial_param)

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        """As Optuna's; a state that was written before the connection broke is not an error."""
        attempts = 0

        def attempt(storage: PatientStorage) -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return RDBStorage.set_trial_state_values(storage, trial_id, state, values)
            except UpdateFinishedTrialError:
                if attempts > 1 and self.get_trial(trial_id).state == state:
                    return True
                raise

        return bool(_patient(attempt)(self))


def _parsed(url: str, source: str) -> URL:
    """Raises SearchError, which never quotes the URL: what cannot be parsed may hold a password."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except NoSuchModuleError:
        raise SearchError(
            f"{source} names the unknown database {url.split(':')[0]!r}; use sqlite, postgresql or "
            "mysql"
        ) from None
    except (ArgumentError, ValueError):
        raise SearchError(
            f"{source} is not a database URL; it looks like sqlite:///FILE.db or "
            "postgresql://USER@HOST/DATABASE"
        ) from None
    except ImportError:
        return parsed
    return parsed


def _secrets(url: URL) -> list[str]:
    in_query = [url.query[field] for field in SECRET_FIELDS if field in url.query]
    given = [url.password, *(str(value) for value in in_query)]
    return [str(secret) for secret in given if secret]


def _reason(problem: Exception, url: URL) -> str:
    """The innermost reason in one line, without passwords."""
    cause = getattr(problem, "orig", None) or problem.__cause__ or problem
    inner = getattr(cause, "orig", None) or cause
    lines = str(inner).splitlines() or [type(inner).__name__]
    text = lines[0].strip()
    for secret in _secrets(url):
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    return text
