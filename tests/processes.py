"""Processes that run the search command: begun anew, or forked off one that has its imports."""

import atexit
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "experiments" / "run_search.py"


class Process(Protocol):
    """What is asked of a process."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """How it ended, if it has: its exit status, or the signal, negative."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended; raises TimeoutExpired where that takes too long."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, unless it has ended."""


Begin = Callable[[Sequence[str], Path, Mapping[str, str]], Process]
"""Begins the search command with these arguments, a file for what it says and an environment."""


def spawned(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """The command as users start it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(COMMAND), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )


def forked(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """The command in a copy of this process, which has none of Ray or torch at work."""
    from experiments.run_search import main

    def command() -> int:
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [str(COMMAND), *arguments]
        return main(list(arguments))

    return Forked(command, log)


class Forked:
    """A copy of this process that does some work and ends."""

    def __init__(self, work: Callable[[], int | None], log: Path):
        """Start with the `work`, which gives the exit status; what it says goes into `log`."""
        self._ended: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        with log.open("wb") as output:
            self.pid = os.fork()
            if self.pid == 0:
                _do(work, output.fileno())

    def poll(self) -> int | None:
        """How it ended, if it has: its exit status, or the signal, negative."""
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status)
        return self._ended

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended; raises TimeoutExpired where that takes too long."""
        end = None if timeout is None else time.monotonic() + timeout
        while (ended := self.poll()) is None:
            if timeout is not None and end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return ended

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


def _do(work: Callable[[], int | None], output: int) -> None:
    """End this process with what `work` gives, as Python ends one."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = work() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
