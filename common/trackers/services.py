"""Trackers one by one: TensorBoard, Weights & Biases, MLflow.

Each is a library of its own, imported only where it is asked for. Callbacks that Optuna and Ray
offer for them belong to `study.optimize` and to Ray's trainers, which no command here calls.
"""

import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import SearchError, reason_of
from common.trackers.names import TENSORBOARD, WANDB, TrackedRun, Tracker, Values

PROJECT = "espalier"
"""Project of Weights & Biases, unless WANDB_PROJECT names another."""
RUN_TAG = "espalier.run"
"""Tag that tells a run of MLflow, whose own ids cannot be chosen, when it is taken up again."""
OWN_ERRORS = (ImportError, SystemExit)
"""What libraries raise besides exceptions where they cannot be used."""


def open_trackers(
    names: Sequence[str], directory: Path, *, group: str, project: str | None = None
) -> dict[str, Tracker]:
    """The trackers by name. What they keep on this machine goes into `directory`; runs belong to
    `group`. Raises SearchError where one cannot be used."""
    opened: dict[str, Tracker] = {}
    for name in dict.fromkeys(names):
        with _refused(name):
            if name == TENSORBOARD:
                opened[name] = TensorBoard(directory / "tensorboard")
            elif name == WANDB:
                opened[name] = WeightsAndBiases(directory, group=group, project=project)
            else:
                opened[name] = MLflow(directory, group=group)
    return opened


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Raises SearchError for whatever a tracker raises inside."""
    try:
        yield
    except (Exception, *OWN_ERRORS) as problem:
        raise SearchError(
            f"--log_to has {name}, which cannot be used: {reason_of(problem)}; mend that, or leave "
            "it out"
        ) from problem


class TensorBoard:
    """Event files, a folder for each run."""

    def __init__(self, directory: Path):
        self.directory = directory

    def run(self, name: str, *, identity: str, facts: Values) -> TrackedRun:
        """A run whose folder is `identity`, which sorts better than names."""
        return _TensorBoardRun(self.directory / identity, name, facts)


class _TensorBoardRun:
    def __init__(self, directory: Path, name: str, facts: Values):
        from tensorboardX import SummaryWriter  # slow; who logs nothing does without

        # Names of files have the second; a start in the same one would empty that of the last.
        self._writer = SummaryWriter(str(directory), filename_suffix=f".{uuid.uuid4().hex[:8]}")
        self._writer.add_text("run", _table({"name": name, **facts}))

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """One scalar for each figure."""
        for figure, value in figures.items():
            self._writer.add_scalar(figure, value, tokens)
        self._writer.flush()

    def finish(self, summary: Values, *, files: Sequence[Path] = (), failed: bool = False) -> None:
        """A table of what came of it; files stay where they are."""
        self._writer.add_text("outcome", _table(summary))
        self.leave()

    def leave(self) -> None:
        """Close the event file; the next start writes another."""
        self._writer.close()


def _table(values: Values) -> str:
    """A table in Markdown."""
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


class WeightsAndBiases:
    """Runs of a project of wandb, in one group."""

    def __init__(self, directory: Path, *, group: str, project: str | None = None):
        import wandb

        online = os.environ.get("WANDB_MODE", "online") == "online"
        if online and not wandb.login(prompt=False):  # else it would ask in the midst of the work
            raise ValueError("nobody is logged in; run wandb login, or set WANDB_MODE=offline")
        self.directory, self.group = directory, group
        self.project = project or os.environ.get("WANDB_PROJECT") or PROJECT

    def run(self, name: str, *, identity: str, facts: Values) -> TrackedRun:
        """A run with `identity` as its id, which goes on where there is one."""
        import wandb

        # Several at once, and without their lines between ours.
        run = wandb.init(
            project=self.project,
            group=self.group,
            name=name,
            id=identity,
            resume="allow",
            dir=str(self.directory),
            config=dict(facts),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        return _WandbRun(run)


class _WandbRun:
    def __init__(self, run: Any):
        self._run = run

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """By tokens as its steps."""
        self._run.log(dict(figures), step=tokens)

    def finish(self, summary: Values, *, files: Sequence[Path] = (), failed: bool = False) -> None:
        """The outcome is its summary; files are uploaded."""
        self._run.summary.update(dict(summary))
        for file in files:
            self._run.log_artifact(str(file), name=f"{self._run.id}-{file.name}", type="result")
        self._run.finish(exit_code=1 if failed else 0)

    def leave(self) -> None:
        """Ends the process beside this one; `resume` takes the run up again."""
        self._run.finish()


class MLflow:
    """Runs of an experiment of MLflow: at MLFLOW_TRACKING_URI, or in a file of the directory."""

    def __init__(self, directory: Path, *, group: str):
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every new table
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(given or f"sqlite:///{directory.absolute() / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(group)
        files = None if given else (directory.absolute() / "mlflow-files").as_uri()
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment(group, files)
        )

    def run(self, name: str, *, identity: str, facts: Values) -> TrackedRun:
        """A run that is told by a tag, which goes on where there is one."""
        told = f"tags.`{RUN_TAG}` = '{identity}'"
        found = self._client.search_runs([self._experiment], told, max_results=1)
        if found:
            key = found[0].info.run_id
            self._client.update_run(key, status="RUNNING")
        else:
            tags = {RUN_TAG: identity}
            made = self._client.create_run(self._experiment, run_name=name, tags=tags)
            key = made.info.run_id
            for fact, value in facts.items():
                self._client.log_param(key, fact, value)
        return _MLflowRun(self._client, key)


class _MLflowRun:
    def __init__(self, client: Any, key: str):
        self._client, self._key = client, key

    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """By tokens as its steps."""
        for figure, value in figures.items():
            self._client.log_metric(self._key, figure, value, step=tokens)

    def finish(self, summary: Values, *, files: Sequence[Path] = (), failed: bool = False) -> None:
        """Figures of the outcome are metrics, words are tags; files are its artifacts."""
        for name, value in summary.items():
            if isinstance(value, str):
                self._client.set_tag(self._key, name, value)
            else:
                self._client.log_metric(self._key, name, float(value))
        for file in files:
            self._client.log_artifact(self._key, str(file))
        self._client.set_terminated(self._key, "FAILED" if failed else "FINISHED")

    def leave(self) -> None:
        """It stays RUNNING, as the trial does that will go on."""
