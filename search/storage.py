"""The database of a study: opened with one clear sentence when it cannot be, password never shown."""

import os
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from search.errors import SearchError

VARIABLE = "ESPALIER_STORAGE"


def take_storage_url(given: str | None, workspace: Path) -> str:
    """The database URL from the setting, the environment or the workspace, in that order.

    The variable is removed from the environment, which every worker would inherit. Raises
    SearchError for a password among the settings: anyone can read a process's arguments.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if given is not None and _parsed(given).password:
        raise SearchError(
            "--storage has a password, which every user of this machine could read in the process "
            f"list; put the URL into the environment variable {VARIABLE} instead"
        )
    url = given or from_environment or f"sqlite:///{(workspace / 'study.db').absolute()}"
    _parsed(url)
    return url


def shown(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def open_storage(url: str) -> RDBStorage:
    """Connect. Raises SearchError where the database cannot be reached or used."""
    database = make_url(url).database
    if make_url(url).get_backend_name() == "sqlite" and database:
        parent = Path(database).absolute().parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise SearchError(f"the folder {parent} of the database cannot be made") from problem
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as problem:
        raise SearchError(
            f"the database {shown(url)} needs a driver that is not installed ({problem}); "
            "for PostgreSQL: pip install psycopg2-binary"
        ) from None
    except (SQLAlchemyError, RuntimeError, ValueError) as problem:
        reason = _without_password(str(problem).splitlines()[0], make_url(url))
        raise SearchError(f"the database {shown(url)} cannot be used: {reason}") from None


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError):
        raise SearchError(
            "the storage is not a database URL; it looks like sqlite:///FILE.db or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    except SQLAlchemyError:
        known = "sqlite, postgresql or mysql"
        raise SearchError(f"the storage is of an unknown kind of database; use {known}") from None
    except ImportError:
        return parsed
    return parsed


def _without_password(text: str, url: URL) -> str:
    return text.replace(str(url.password), "***") if url.password else text
