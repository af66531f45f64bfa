"""The database URL: taken from the right place, its password never shown."""

import os
import sys
import tomllib
from pathlib import Path

import optuna
import pytest

from common.errors import SearchError
from search.database.storage import open_storage
from search.database.storage_url import (
    OWN_DRIVERS,
    VARIABLE,
    connecting,
    remedy,
    shown,
    take_storage_url,
)

PASSWORD = "s3cret/w&rd"
ENCODED = "s3cret%2Fw%26rd"


def test_settings_then_environment_then_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "sqlite:///environment.db")
    assert take_storage_url("sqlite:///given.db", tmp_path) == "sqlite:///given.db"
    assert VARIABLE not in os.environ, "workers would inherit it"
    monkeypatch.setenv(VARIABLE, "sqlite:///environment.db")
    assert take_storage_url(None, tmp_path) == "sqlite:///environment.db"
    assert VARIABLE not in os.environ
    assert take_storage_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{ENCODED}@127.0.0.1:1/studies",
        f"postgresql://127.0.0.1:1/studies?user=me&password={ENCODED}",
        f"postgres+asyncpg://me:{ENCODED}@127.0.0.1:1/studies",
        f"mysql://me:{ENCODED}@127.0.0.1:1/studies",
        f"mariadb+aiomysql://me:{ENCODED}@127.0.0.1:1/studies",
    ],
)
def test_a_password_is_shown_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], lines: list[str], url: str
) -> None:
    messages = [shown(url)]
    with pytest.raises(SearchError) as caught:
        take_storage_url(url, tmp_path)
    messages.append(str(caught.value))
    assert VARIABLE in messages[-1]
    with pytest.raises(SearchError) as caught:
        open_storage(url)  # no such server, or no driver for it
    messages += [*lines, str(caught.value), *capfd.readouterr()]
    assert "127.0.0.1" in str(caught.value)
    assert not any(PASSWORD in text or ENCODED in text or "s3cret" in text for text in messages)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle9://me@host/db", "--storage names the database 'oracle9'"),
        ("oracle://me@host/db", "'oracle', .* use sqlite, postgresql or mysql"),
        ("mssql+pyodbc://me@host/db", "'mssql', .* use sqlite, postgresql or mysql"),
        ("redis://host", "'redis', .* use sqlite, postgresql or mysql"),
        ("postgresql+nosuch://me@host/db", "unknown driver 'nosuch'.*: postgresql://"),
        ("mariadb+nosuch://me@host/db", "unknown driver 'nosuch'.*: mysql://"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite+aiosqlite://", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("study.db", "--storage is not a database URL"),
        ("sqlite//study.db", "--storage is not a database URL"),
        ("postgresql://me@host:port/db", "--storage is not a database URL"),
    ],
)
def test_urls_that_are_none(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(SearchError, match=said):
        take_storage_url(url, tmp_path)


def test_the_environment_is_named_where_the_url_comes_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"nonsense://me:{PASSWORD}@host/db")
    with pytest.raises(SearchError, match=f"{VARIABLE} names") as caught:
        take_storage_url(None, tmp_path)
    assert "s3cret" not in str(caught.value)


def test_sqlite_paths_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("this is no database, and it is long enough to be seen as one " * 20)
    for url in (f"sqlite:///{file}/below/study.db", f"sqlite:///{tmp_path}", f"sqlite:///{file}"):
        with pytest.raises(SearchError, match=str(tmp_path)) as caught:
            open_storage(url)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql", "postgresql+psycopg2"),
        ("postgres", "postgresql+psycopg2"),
        ("postgresql+psycopg", "postgresql+psycopg"),
        ("mysql", "mysql+pymysql"),
        ("mariadb", "mysql+pymysql"),
        ("mariadb+pymysql", "mysql+pymysql"),
        ("mysql+mysqldb", "mysql+mysqldb"),
        ("sqlite", "sqlite"),
    ],
)
def test_the_driver_of_the_extra_is_used_where_none_is_named(given: str, used: str) -> None:
    pytest.importorskip("psycopg2")
    found = connecting(f"{given}://me:s3cret@127.0.0.1:1/studies?application_name=x")
    assert found.url.drivername == used and found.remark is None
    assert (found.url.password, found.url.port) == ("s3cret", 1)
    assert found.url.query == {"application_name": "x"}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql+asyncpg", "postgresql+psycopg2"),
        ("postgres+asyncpg", "postgresql+psycopg2"),
        ("postgresql+psycopg_async", "postgresql+psycopg"),
        ("mysql+aiomysql", "mysql+pymysql"),
        ("mysql+asyncmy", "mysql+pymysql"),
        ("mariadb+aiomysql", "mysql+pymysql"),
        ("sqlite+aiosqlite", "sqlite+pysqlite"),
    ],
)
def test_drivers_for_asyncio_are_replaced_and_that_is_said(given: str, used: str) -> None:
    found = connecting(f"{given}://me:s3cret@127.0.0.1:1/studies")
    asked, taken = given.partition("+")[2], used.partition("+")[2]
    assert found.url.drivername == used and not found.url.get_dialect().is_async
    assert found.remark == f"storage: {asked} works in asyncio only; {taken} is used instead"


DRIVERS = ("psycopg", "psycopg2", "pg8000", "pymysql", "MySQLdb", "mysql", "mariadb")


@pytest.mark.parametrize(
    ("scheme", "hint"),
    [
        ("postgresql", "-e '.[postgresql]' in Espalier's checkout"),
        ("postgres+asyncpg", "-e '.[postgresql]' in Espalier's checkout"),
        ("postgresql+psycopg2", "-e '.[postgresql]' in Espalier's checkout"),
        ("postgresql+psycopg", "'psycopg[binary]'"),
        ("postgresql+pg8000", "pg8000"),
        ("mysql", "-e '.[mysql]' in Espalier's checkout"),
        ("mariadb", "-e '.[mysql]' in Espalier's checkout"),
        ("mysql+aiomysql", "-e '.[mysql]' in Espalier's checkout"),
        ("mysql+mysqldb", "mysqlclient"),
        ("mysql+mysqlconnector", "mysql-connector-python"),
        ("mariadb+mariadbconnector", "mariadb"),
    ],
)
def test_what_to_install_is_named_where_a_driver_is_missing(
    monkeypatch: pytest.MonkeyPatch, scheme: str, hint: str
) -> None:
    for driver in DRIVERS:
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SearchError) as caught:
        open_storage(f"{scheme}://me:s3cret@127.0.0.1:1/studies")
    assert str(caught.value).endswith(f"not installed: pip install {hint}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("database", "driver"), OWN_DRIVERS.items())
def test_the_extra_that_is_named_brings_the_driver(database: str, driver: str) -> None:
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    url = connecting(f"{database}+{driver}://me@127.0.0.1/studies").url
    (extra,) = [name for name in extras if f"'.[{name}]'" in remedy(url)]
    assert any(package.startswith(driver) for package in extras[extra])


def test_another_driver_that_is_installed_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"psycopg", "MySQLdb"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    assert connecting("postgresql://me@host/db").url.drivername == "postgresql+psycopg"
    assert connecting("mariadb://me@host/db").url.drivername == "mysql+mysqldb"


def test_a_workspace_of_any_name_holds_its_database(tmp_path: Path) -> None:
    folder = tmp_path / "50% {of} #1? a%20b"
    optuna.create_study(storage=open_storage(take_storage_url(None, folder)), study_name="s")
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
