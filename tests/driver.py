"""The real command in a process of its own, on the demo's teacher, small enough for a test."""

import contextlib
import gzip
import json
import os
import signal
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from distill.recipes.reports import RunProgress
from search.database.trial_facts import progress_of
from tests.processes import ROOT as ROOT
from tests.processes import Begin, Process, served

TEACHER = ROOT / "experiments" / "demo" / "teacher"
PATIENCE = 600.0
"""Seconds after which something hangs; nothing is measured by it."""
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
"""As it was before any test changed it: studies are started while other tests run."""
STEPS = 32
"""Optimiser steps of a run with these settings."""
ARCHITECTURES = 6
"""Architectures of the space below that are inside the budget."""
SMALL = {
    "budget.parameters": 0.5,
    "space.layers": [4, 6],
    "space.hidden": [96, 120, 152, 192],
    "space.heads": [2, 6, 8],
    "space.ffn": [272, 480, 640],
    "trials": 3,
    "block": 64,
    "short_tokens": 4096,
    "full_tokens": 4096,
    "winners": 1,  # and as short as a trial, so that it is taken over from one
    "calibration": 16,
    "training.batch": 2,
    "splits.selection_tokens": 1024,
    "splits.test_tokens": 1024,
    "checkpoint_seconds": 0.2,
    "resources.concurrent": 1,
    "study": "test",
}


def progress_within(trial: FrozenTrial) -> RunProgress:
    """How far a trial came that has reported."""
    progress = progress_of(trial)
    assert progress is not None, trial
    return progress


def write_corpus(path: Path) -> Path:
    """Part of the standard library as JSON lines, so many of them that no split can be empty."""
    library = Path(sysconfig.get_path("stdlib"))
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for package in ("json", "logging"):
            for source in sorted((library / package).glob("*.py")):
                for text in source.read_text("utf-8").split("\n\n"):
                    if text.strip():
                        file.write(json.dumps({"text": text}) + "\n")
    return path


@dataclass
class Driver:
    """A study that is started, stopped and started again."""

    workspace: Path
    corpus: Path
    environment: dict[str, str] = field(default_factory=lambda: ENVIRONMENT)
    begin: Begin = served

    @property
    def logs(self) -> list[Path]:
        """What the command said, one file for each start, in order."""
        return sorted(self.workspace.parent.glob("start-*.log"))

    def arguments(self, **options: object) -> list[str]:
        """The command's options: the small ones, changed by those given."""
        settings = SMALL | {"teacher": TEACHER, "corpus": self.corpus, "workspace": self.workspace}
        settings |= {name.replace("__", "."): value for name, value in options.items()}
        return [f"--{name}={value}" for name, value in settings.items()]

    def start(self, **options: object) -> Process:
        """Start the command in a process of its own."""
        log = self.workspace.with_name(f"start-{len(self.logs)}.log")
        return self.begin(self.arguments(**options), log, self.environment)

    def finish(self, **options: object) -> str:
        """Run the command to its end, which must be good; returns its output."""
        process = self.start(**options)
        self.wait(process, 0)
        return self.output()

    def wait(self, process: Process, status: int) -> None:
        found = process.wait(timeout=PATIENCE)
        assert found == status, f"exit status {found}, not {status}:\n{self.output()}"

    def output(self, start: int = -1) -> str:
        """What the command said; of the last start, or of another."""
        return self.logs[start].read_text("utf-8", errors="replace")

    def until(self, process: Process, condition: Callable[[], bool]) -> None:
        """Wait for `condition` while the command runs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, f"ended too early:\n{self.output()}"
            assert time.monotonic() < end, f"waited too long:\n{self.output()}"
            time.sleep(0.01)

    def until_said(self, process: Process, text: str) -> None:
        self.until(process, lambda: text in self.output())

    def until_within(self, process: Process, runs: str) -> None:
        """Wait until one of `runs` has a checkpoint that is not of its end."""
        self.until(process, lambda: any(0 < s < STEPS for s in self.checkpoint_steps(runs)))

    def kill(self, process: Process) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, process: Process, signum: int, status: int) -> None:
        """Have the command stop in order, with one trial to take up again."""
        process.send_signal(signum)
        self.wait(process, status)
        assert self.states()["RUNNING"] == 0
        assert self.states()["WAITING"] == 1

    def trial_workers(self, process: Process) -> list[psutil.Process]:
        """Ray's processes below this one that are in a trial, oldest first."""
        found = []
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ray::trial-" in "".join(child.cmdline()[:1]):
                    found.append((child.create_time(), child))
        return [child for _, child in sorted(found, key=lambda pair: pair[0])]

    def trials(self) -> list[FrozenTrial]:
        storage = f"sqlite:///{self.workspace / 'study.db'}"
        return optuna.load_study(study_name="test", storage=storage).get_trials()

    def finished_trials(self) -> list[FrozenTrial]:
        """Those scored to the end or stopped early."""
        return [t for t in self.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]

    def states(self) -> dict[str, int]:
        found = [trial.state for trial in self.trials()]
        return {state.name: found.count(state) for state in TrialState}

    def weights(self) -> bytes:
        """The winner's, as they are in its file."""
        return (self.workspace / "best" / "model.safetensors").read_bytes()

    def checkpoint_steps(self, pattern: str) -> list[int]:
        """Optimiser steps of the checkpoints that are there right now."""
        steps = []
        for file in (self.workspace / "checkpoints").glob(f"*/{pattern}/meta.json"):
            try:
                steps.append(int(json.loads(file.read_text())["step"]))
            except (OSError, ValueError):
                continue
        return steps
