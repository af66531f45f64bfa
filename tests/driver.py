"""The real command in a process of its own, on the demo's teacher, small enough for a test."""

import gzip
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from distill.splits import is_held_out

ROOT = Path(__file__).resolve().parents[1]
TEACHER = ROOT / "experiments" / "demo" / "teacher"
PATIENCE = 180.0
SMALL = {
    "budget.parameters": 0.5,
    "trials": 4,
    "short_tokens": 16384,
    "full_tokens": 16384,
    "winners": 1,
    "seeds": 1,
    "calibration": 16,
    "training.batch": 2,
    "splits.selection_tokens": 1024,
    "splits.test_tokens": 1024,
    "checkpoint_seconds": 0.2,
    "resources.concurrent": 1,
    "study": "test",
}


def write_corpus(path: Path) -> Path:
    """Part of the standard library as JSON lines, held-out files included."""
    library = Path(sysconfig.get_path("stdlib"))
    texts = []
    for package in ("asyncio", "email", "json", "http", "logging", "unittest", "importlib"):
        texts += [file.read_text("utf-8") for file in sorted((library / package).glob("*.py"))]
    texts += [f.read_text("utf-8") for f in sorted(library.glob("*.py")) if is_held_out(f.name)]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for text in texts:
            if text.strip():
                file.write(json.dumps({"text": text}) + "\n")
    return path


@dataclass
class Driver:
    """A study that a test starts, stops and starts again."""

    workspace: Path
    corpus: Path

    @property
    def log(self) -> Path:
        return self.workspace.with_suffix(".log")

    def start(self, **options: object) -> subprocess.Popen[bytes]:
        """Start the command; its output goes to `log`, from the beginning."""
        settings = SMALL | {"teacher": TEACHER, "corpus": self.corpus, "workspace": self.workspace}
        settings |= {name.replace("__", "."): value for name, value in options.items()}
        command = [sys.executable, str(ROOT / "experiments" / "run_search.py")]
        command += [f"--{name}={value}" for name, value in settings.items()]
        with self.log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
                cwd=ROOT,
                start_new_session=True,
            )

    def finish(self, **options: object) -> str:
        """Run the command to its end, which must be good; returns its output."""
        process = self.start(**options)
        self.wait(process, 0)
        return self.output()

    def wait(self, process: subprocess.Popen[bytes], status: int) -> None:
        found = process.wait(timeout=PATIENCE)
        assert found == status, f"exit status {found}, not {status}:\n{self.output()}"

    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def until(self, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        """Wait for `condition` while the command runs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert process.poll() is None, f"ended too early:\n{self.output()}"
            assert time.monotonic() < end, f"waited too long:\n{self.output()}"
            time.sleep(0.01)

    def until_said(self, process: subprocess.Popen[bytes], text: str) -> None:
        self.until(process, lambda: text in self.output())

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def trials(self) -> list[FrozenTrial]:
        storage = f"sqlite:///{self.workspace / 'study.db'}"
        return optuna.load_study(study_name="test", storage=storage).get_trials()

    def states(self) -> dict[str, int]:
        found = [trial.state for trial in self.trials()]
        return {state.name: found.count(state) for state in TrialState}

    def results(self) -> dict[str, object]:
        results: dict[str, object] = json.loads((self.workspace / "results.json").read_text())
        return results

    def checkpoint_steps(self, pattern: str) -> list[int]:
        """Optimiser steps of the checkpoints that are there right now."""
        steps = []
        for file in (self.workspace / "checkpoints").glob(f"*/{pattern}/meta.json"):
            try:
                steps.append(int(json.loads(file.read_text())["step"]))
            except (OSError, ValueError):
                continue
        return steps
