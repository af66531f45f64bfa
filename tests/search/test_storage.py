"""The database URL: taken from the right place, its password never shown."""

import os
import sys
from pathlib import Path

import optuna
import pytest

from search.errors import SearchError
from search.storage import open_storage
from search.storage_url import VARIABLE, shown, take_storage_url

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
    ],
)
def test_a_password_is_shown_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    messages = [shown(url)]
    with pytest.raises(SearchError) as caught:
        take_storage_url(url, tmp_path)
    messages.append(str(caught.value))
    assert VARIABLE in messages[-1]
    with pytest.raises(SearchError) as caught:
        open_storage(url)  # no such server, or no driver for it
    messages += [str(caught.value), *capfd.readouterr()]
    assert "127.0.0.1" in str(caught.value)
    assert not any(PASSWORD in text or ENCODED in text or "s3cret" in text for text in messages)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle9://me@host/db", "--storage names the database 'oracle9'"),
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


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    for kind in ("postgresql", "postgresql+psycopg2"):
        with pytest.raises(SearchError, match=r"pip install -e '\.\[postgresql\]' in"):
            open_storage(f"{kind}://me@127.0.0.1:1/studies")


def test_a_study_is_found_again(tmp_path: Path) -> None:
    url = take_storage_url(None, tmp_path / "new")
    optuna.create_study(storage=open_storage(url), study_name="s").set_user_attr("mark", 1)
    again = optuna.load_study(storage=open_storage(url), study_name="s")
    assert again.user_attrs["mark"] == 1
