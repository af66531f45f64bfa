"""Processes that run a command: begun anew, or forked off one that has its imports, which take
seconds of every start."""

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
SEARCH, DISTILL = "run_search", "run_distill"
"""Commands."""
IMPORTED = (
    "experiments.run_search",
    "experiments.run_distill",
    "experiments.distill.session",
    "search.run",
    "distill.backend.parallel",
    # what these import when they come to it
    "alembic.command",
    "matplotlib.backends.backend_svg",
    "optuna_dashboard",
    "ray.dag",
    "ray.dashboard.optional_deps",
    "rich.live",
    "transformers.models.llama.modeling_llama",
)
"""Modules of a process that others are forked off."""


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


class Begin(Protocol):
    """Begins a command with these arguments, a file for what it says and an environment."""

    def __call__(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        command: str = SEARCH,
    ) -> Process:
        """What began."""


def spawned(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str], command: str = SEARCH
) -> Process:
    """The command as users start it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, _script(command), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )


def forked(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str], command: str = SEARCH
) -> Process:
    """The command in a copy of this process, which has none of Ray or torch at work."""
    return Forked(partial(_command, command, arguments, environment), log)


def served(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str], command: str = SEARCH
) -> Process:
    """The command in a copy of the fork server: threads of Ray or torch may be at work in this
    process, which therefore cannot be copied itself."""
    return Served(partial(_command, command, list(arguments), dict(environment)), log)


def _script(command: str) -> str:
    return str(ROOT / "experiments" / f"{command}.py")


def _command(command: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [_script(command), *arguments]
    status: int = importlib.import_module(f"experiments.{command}").main(list(arguments))
    return status


def import_once() -> None:
    """What the modules of `IMPORTED` import, for all copies of this process."""
    for module in IMPORTED:
        importlib.import_module(module)


class Copy:
    """What copies of a process have in common."""

    pid: int

    def poll(self) -> int | None:
        """How it ended, if it has: its exit status, or the signal, negative."""
        raise NotImplementedError

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class Forked(Copy):
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


class Served(Copy):
    """The same of a copy of the process that `fork_server` keeps."""

    def __init__(self, work: Callable[[], int | None], log: Path):
        """Start with the `work`, which can be pickled; what it says goes into `log`."""
        self._process = fork_server().Process(target=_do_into, args=(work, str(log)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """How it ended, if it has: its exit status, or the signal, negative."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended; raises TimeoutExpired where that takes too long."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return self._process.exitcode


def fork_server() -> ForkServerContext:
    """Begins processes as copies of one that has imported what they need, and does nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.imported"])
    return context


def _do_into(work: Callable[[], int | None], log: str) -> None:
    with Path(log).open("wb") as output:
        _do(work, output.fileno())


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
