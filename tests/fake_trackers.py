"""wandb and mlflow as modules that keep what they are sent, for tests without the libraries."""

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest


class FakeWandbRun:
    """A run of wandb."""

    def __init__(self, identity: str, options: dict[str, Any]):
        self.id, self.options = identity, options
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, Any] = {}
        self.files: list[str] = []
        self.ended: list[int] = []

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def log_artifact(self, path: str, name: str, type: str) -> None:  # noqa: A002
        self.files.append(name)

    def finish(self, exit_code: int = 0) -> None:
        self.ended.append(exit_code)


class FakeWandb:
    """The module; a run that is resumed is the same."""

    def __init__(self) -> None:
        self.runs: dict[str, FakeWandbRun] = {}
        self.broken = False
        self.logged_in = True

    def init(self, **options: Any) -> FakeWandbRun:
        if self.broken:
            raise ConnectionError("no route to the server")
        identity = options["id"]
        return self.runs.setdefault(identity, FakeWandbRun(identity, options))

    def login(self, *, prompt: bool) -> bool:
        assert not prompt
        return self.logged_in

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings


class FakeMlflow:
    """The module and its client at once."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Any] = {}

    def MlflowClient(self, uri: str) -> "FakeMlflow":  # noqa: N802
        self.uris.append(uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.experiments.get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str, location: str | None) -> str:
        self.experiments[name] = f"e{len(self.experiments)}"
        return self.experiments[name]

    def search_runs(self, experiments: list[str], wanted: str, max_results: int) -> list[Any]:
        identity = re.fullmatch(r"tags\.`espalier\.run` = '(.*)'", wanted)
        assert identity is not None
        named = identity[1]
        return [run for run in self.runs.values() if run.tags["espalier.run"] == named]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        key = f"r{len(self.runs)}"
        self.runs[key] = SimpleNamespace(
            info=SimpleNamespace(run_id=key),
            name=run_name,
            tags=dict(tags),
            params={},
            metrics=[],
            files=[],
            status="RUNNING",
        )
        return self.runs[key]

    def update_run(self, key: str, status: str) -> None:
        self.runs[key].status = status

    def log_param(self, key: str, name: str, value: Any) -> None:
        self.runs[key].params[name] = value

    def log_metric(self, key: str, name: str, value: float, step: int = 0) -> None:
        self.runs[key].metrics.append((step, name, value))

    def set_tag(self, key: str, name: str, value: str) -> None:
        self.runs[key].tags[name] = value

    def log_artifact(self, key: str, path: str) -> None:
        self.runs[key].files.append(path)

    def set_terminated(self, key: str, status: str) -> None:
        self.runs[key].status = status

    def by_name(self) -> dict[str, Any]:
        return {run.name: run for run in self.runs.values()}


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeWandb, FakeMlflow]:
    """Have imports of both give these."""
    wandb, mlflow = FakeWandb(), FakeMlflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for name in ("WANDB_PROJECT", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return wandb, mlflow
