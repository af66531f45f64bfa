"""Driver leases: tell the live drivers of a study from the dead ones.

Each driver keeps a lease in the study; the lock in the workspace keeps a second driver off its
files. Optuna's heartbeats (`fail_stale_trials` with `RetryHeartbeatStaleTrialCallback`) do not
replace them: they know death by silence alone, so that a search started again would wait for its
own trials, and one whose driver died before its first beat stays RUNNING for good; a trial is
failed before its continuation is added, and lost if the driver is killed in between; every
interruption counts, the user's own too; and nothing keeps a second driver off an SQLite study.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import optuna
import psutil

from common.errors import SearchError
from search.database.attributes import LEASE

RENEW_SECONDS = 60.0
"""Between renewals of a lease."""
STALE_SECONDS = 600.0
"""Silence after which a driver on another machine is taken for dead."""


@dataclass(frozen=True)
class Driver:
    """A driver process, told from any other by its start time and the machine's boot."""

    host: str
    """Name of its machine."""
    boot_id: str
    """Of the machine's boot, since process numbers begin anew with the next."""
    pid: int
    """Number of its process."""
    started: float
    """When the process started, in seconds since 1970."""
    token: str
    """Random name, which stands in every trial that it starts."""

    @classmethod
    def this(cls) -> "Driver":
        """This process, with a new token."""
        process = psutil.Process()
        return cls(
            socket.gethostname(), _boot_id(), process.pid, process.create_time(), uuid.uuid4().hex
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_gone(self, renewed: float) -> bool:
        """Whether this driver is certainly dead, or silent for longer than a live one is."""
        if self.host != socket.gethostname():
            return time.time() - renewed > STALE_SECONDS
        if self.boot_id != _boot_id():
            return True
        try:
            process = psutil.Process(self.pid)
            running = process.status() != psutil.STATUS_ZOMBIE
            if not running or abs(process.create_time() - self.started) > 1.0:
                return True
        except psutil.NoSuchProcess:
            return True
        # An earlier search of this very process may have left its lease in a locked database.
        return self.pid == os.getpid() and self.keeper not in _thread_names()

    @property
    def keeper(self) -> str:
        """Name of the thread that renews its lease."""
        return f"lease {self.token}"


def _thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def drivers(study: optuna.Study) -> dict[str, Driver]:
    """The study's live drivers, by token."""
    live = {}
    for name, lease in study.user_attrs.items():
        if name.startswith(LEASE) and lease:
            driver = Driver(**{key: value for key, value in lease.items() if key != "renewed"})
            if not driver.is_gone(lease["renewed"]):
                live[driver.token] = driver
    return live


@contextlib.contextmanager
def leased(study: optuna.Study, shared: bool = False) -> Iterator[Driver]:
    """Hold a lease on the study.

    Raises SearchError while another driver holds one, unless `shared`.
    """
    driver = Driver.this()
    name = LEASE + driver.token
    done = threading.Event()

    def renew() -> None:
        study.set_user_attr(name, {**asdict(driver), "renewed": time.time()})

    def keep() -> None:
        while not done.wait(RENEW_SECONDS):
            with contextlib.suppress(Exception):  # a missed renewal is made up for by the next
                renew()

    keeper = threading.Thread(target=keep, daemon=True, name=driver.keeper)
    keeper.start()
    try:
        # First announced, then looked: of two that start at once, at least one sees the other.
        renew()
        others = [other for other in drivers(study).values() if other != driver]
        if others and not shared:
            raise SearchError(
                f"the study {study.study_name} is being driven by {others[0]}; stop that one "
                "first, or choose another --study"
            )
        yield driver
    finally:
        done.set()
        keeper.join()
        with contextlib.suppress(Exception):  # a lease that is left behind ends with its process
            study.set_user_attr(name, None)


@contextlib.contextmanager
def locked(workspace: Path) -> Iterator[None]:
    """Hold the workspace's lock, which the system releases however the process ends."""
    lock = filelock.FileLock(workspace / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SearchError(
            f"another driver is at work in {workspace}; wait for it, or choose another --workspace"
        ) from None
    try:
        yield
    finally:
        lock.release()
