"""The URL of a study's database: where it is given, which driver it means, no password shown."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from common.errors import SearchError

VARIABLE = "ESPALIER_STORAGE"
"""Environment variable that may hold the URL."""
SECRET_FIELDS = ("password", "passwd", "sslpassword")
"""What a URL's query may carry besides the password before its host."""
SUPPORTED = ("sqlite", "postgresql", "mysql")
"""Databases that a study can be kept in."""
OTHER_NAMES = {"postgres": "postgresql", "mariadb": "mysql"}
"""Names that people use for a supported database. MariaDB is spoken to as MySQL, which is what
Optuna knows."""
OWN_DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}
"""Of the extras, used where the URL names no driver; SQLAlchemy's own choice is another."""
ALTERNATIVES = {"postgresql": ("psycopg",), "mysql": ("MySQLdb",)}
"""Modules of drivers that do as well, where one is installed and that of the extra is not."""
SYNCHRONOUS = {
    "asyncpg": "psycopg2",
    "psycopg_async": "psycopg",
    "aiomysql": "pymysql",
    "asyncmy": "pymysql",
    "aiosqlite": "pysqlite",
}
"""What is used instead of drivers that only asyncio can use, and Optuna cannot."""
EXTRA = "pip install -e '.[{}]' in Espalier's checkout"
REMEDIES = {
    "psycopg2": EXTRA.format("postgresql"),
    "pymysql": EXTRA.format("mysql"),
    "psycopg": "pip install 'psycopg[binary]'",
    "mysqldb": "pip install mysqlclient",
    "mysqlconnector": "pip install mysql-connector-python",
    "mariadbconnector": "pip install mariadb",
    "pysqlcipher": "pip install sqlcipher3",
}
"""What to do where a driver is not installed; others are packages of their own name."""


@dataclass(frozen=True)
class Connecting:
    """How a database is reached."""

    url: URL
    """With the driver that is used."""
    remark: str | None = None
    """What the user must know of that choice."""


def take_storage_url(given: str | None, workspace: Path) -> str:
    """The database URL from the setting, the environment or the workspace, in that order.

    The variable is removed from the environment, which every worker would inherit. Raises
    SearchError for a password among the settings, since anyone can read a process's arguments, and
    for a database that cannot hold a study.
    """
    from_environment = os.environ.pop(VARIABLE, None)
    if given is not None and secrets(_parsed(given, "--storage")):
        raise SearchError(
            "--storage has a password, which every user of this machine could read in the process "
            f"list; put the URL into the environment variable {VARIABLE} instead"
        )
    url = given or from_environment
    if not url:
        file = str((workspace / "study.db").absolute())
        return URL.create("sqlite", database=file).render_as_string()
    _parsed(url, "--storage" if given else VARIABLE)
    return url


def shown(url: str) -> str:
    """The URL without its password."""
    parsed = make_url(url).difference_update_query(SECRET_FIELDS)
    return parsed.render_as_string(hide_password=True)


def connecting(url: str) -> Connecting:
    """With the name and the driver that Optuna can use."""
    parsed = _usual_name(make_url(url))
    backend, _, driver = parsed.drivername.partition("+")
    if driver in SYNCHRONOUS:
        used = SYNCHRONOUS[driver]
        remark = f"storage: {driver} works in asyncio only; {used} is used instead"
        return Connecting(parsed.set(drivername=f"{backend}+{used}"), remark)
    own = OWN_DRIVERS.get(backend)
    if driver or own is None:
        return Connecting(parsed)
    if not importlib.util.find_spec(own):
        for module in ALTERNATIVES[backend]:
            if importlib.util.find_spec(module):
                return Connecting(parsed.set(drivername=f"{backend}+{module.lower()}"))
    return Connecting(parsed.set(drivername=f"{backend}+{own}"))


def remedy(url: URL) -> str:
    """What to do where the driver of a URL from `connecting` is not installed."""
    driver = url.drivername.partition("+")[2] or url.get_driver_name()
    return REMEDIES.get(driver, f"pip install {driver}")


def secrets(url: URL) -> list[str]:
    """The passwords in a URL."""
    in_query = [url.query[field] for field in SECRET_FIELDS if field in url.query]
    given = [url.password, *(str(value) for value in in_query)]
    return [str(secret) for secret in given if secret]


def without_secrets(text: str, url: URL) -> str:
    """The text with every password of the URL replaced, in whichever form it is in there."""
    for secret in secrets(url):
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "***")
    return text


def _usual_name(url: URL) -> URL:
    backend, plus, driver = url.drivername.partition("+")
    return url.set(drivername=OTHER_NAMES.get(backend, backend) + plus + driver)


def _parsed(url: str, source: str) -> URL:
    """Raises SearchError, which never quotes the URL: what cannot be parsed may hold a password."""
    try:
        parsed = _usual_name(make_url(url))
    except (ArgumentError, ValueError):
        raise SearchError(
            f"{source} is not a database URL; it looks like sqlite:///FILE.db or "
            "postgresql://USER@HOST/DATABASE"
        ) from None
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in SUPPORTED:
        raise SearchError(
            f"{source} names the database {backend!r}, which a study cannot be kept in; use "
            f"{', '.join(SUPPORTED[:-1])} or {SUPPORTED[-1]} (MariaDB too)"
        )
    try:
        parsed.get_dialect()
    except NoSuchModuleError:
        raise SearchError(
            f"{source} names the unknown driver {driver!r} of {backend}; leave it out: {backend}://"
        ) from None
    except ImportError:
        pass  # its driver is looked for where it is needed
    if backend == "sqlite" and _in_memory(parsed):
        raise SearchError(
            f"{source} names a database in memory, which ends with the search; name a file, as in "
            "sqlite:///FILE.db"
        )
    return parsed


def _in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"
