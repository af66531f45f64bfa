"""The page of a database by its own command: only of what is there, and no password anywhere."""

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from experiments.run_dashboard import main
from search.config.objectives import Objectives
from search.dashboards.ports import free_port
from search.database.storage import open_storage
from search.database.storage_url import VARIABLE
from search.study.agreement import open_study
from tests.driver import ENVIRONMENT, ROOT
from tests.postgresql import ENCODED, PASSWORD, Server


@pytest.mark.parametrize(
    ("storage", "variable", "said"),
    [
        (None, None, "there is no database"),
        ("sqlite:///{}/empty.db", None, "holds no study"),
        ("postgresql://me:hidden@127.0.0.1:1/x", None, "--storage has a password"),
        (None, "postgresql://me:hidden@127.0.0.1:1/x", "cannot be used"),
        ("sqlite:///:memory:", None, "in memory"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(
    storage: str | None,
    variable: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.db").touch()
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    given = [] if storage is None else [f"--storage={storage.format(tmp_path)}"]
    assert main([*given, f"--workspace={tmp_path / 'none'}", "--port=0"]) == 2
    output = capsys.readouterr()
    assert output.out.splitlines() == ["optuna-dashboard: opening the database"]
    assert output.err.startswith("error: ") and said in output.err
    assert output.err.count("\n") == 1 and "hidden" not in output.err
    assert not (tmp_path / "none").exists()


@pytest.mark.process
def test_the_command_serves_until_it_is_ended_and_keeps_the_password(
    postgresql: Server, tmp_path: Path
) -> None:
    url = postgresql.database()
    storage = open_storage(url)
    open_study(storage, "mine", objectives=Objectives())
    storage.engine.dispose()
    port = free_port("127.0.0.1", 0, option="--x")
    command = [
        sys.executable,
        str(ROOT / "experiments" / "run_dashboard.py"),
        f"--port={port}",
        f"--workspace={tmp_path}",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT | {VARIABLE: url},
    )
    assert process.stdout is not None
    said = process.stdout.readline() + process.stdout.readline()
    assert ": 1 study (mine)" in said
    assert f"optuna-dashboard: http://127.0.0.1:{port}/dashboard" in said
    for path in ("studies", "studies/1", "meta"):
        said += urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}").read().decode()
    assert '"study_name": "mine"' in said
    said += " ".join(psutil.Process(process.pid).cmdline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    said += process.stdout.read()
    assert "the studies go on" in said
    assert PASSWORD not in said and ENCODED not in said
