"""Who drives a study and a workspace.

Each driver keeps a lease in the study, so that another can tell a live one from a dead one; the
lock in the workspace keeps a second driver off its files.
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

from search.errors import SearchError

PREFIX = "driver:"
"""Of the study's attributes that are leases; the driver's token follows. Each driver writes its own
attribute only, so no renewal can undo another's."""
RENEW_SECONDS = 60.0
STALE_SECONDS = 600.0


@dataclass(frozen=True)
class Driver:
    """A driver process, told from any other by its start time and the machine's boot."""

    host: str
    boot_id: str
    pid: int
    started: float
    token: str

    @classmethod
    def this(cls) -> "Driver":
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
        if name.startswith(PREFIX) and lease:
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
    name = PREFIX + driver.token
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
