"""The database of a study: one clear sentence where it cannot be opened, no password in any."""

import os
from pathlib import Path
from urllib.parse import quote, quote_plus

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import SearchError

VARIABLE = "ESPALIER_STORAGE"
DRIVERS = {"postgresql": "psycopg2-binary", "mysql": "pymysql"}
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
    """Connect. Raises SearchError where the database cannot be reached or used."""
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
    try:
        storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except ImportError:
        remedy = f"pip install {DRIVERS[kind]}" if kind in DRIVERS else "install it"
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
