"""One driver per study and per workspace.

The lease in the study says who drives it, so that another driver can tell a live one from a dead
one; the lock in the workspace keeps a second driver of this machine off its files.
"""

import contextlib
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

ATTRIBUTE = "driver"
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

    def is_gone(self, renewed: float) -> bool:
        """Whether this driver is certainly dead, or silent for longer than a live one is."""
        if self.host != socket.gethostname():
            return time.time() - renewed > STALE_SECONDS
        if self.boot_id != _boot_id():
            return True
        try:
            process = psutil.Process(self.pid)
            running = process.status() != psutil.STATUS_ZOMBIE
            return not running or abs(process.create_time() - self.started) > 1.0
        except psutil.NoSuchProcess:
            return True


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


@contextlib.contextmanager
def leased(study: optuna.Study) -> Iterator[Driver]:
    """Hold the study's lease. Raises SearchError while another driver holds it."""
    held = study.user_attrs.get(ATTRIBUTE)
    if held:
        renewed = held.pop("renewed")
        other = Driver(**held)
        if not other.is_gone(renewed):
            raise SearchError(
                f"the study {study.study_name} is being driven by process {other.pid} on "
                f"{other.host}; stop that one first, or choose another --study"
            )
    driver = Driver.this()
    done = threading.Event()

    def renew() -> None:
        study.set_user_attr(ATTRIBUTE, {**asdict(driver), "renewed": time.time()})

    def keep() -> None:
        while not done.wait(RENEW_SECONDS):
            with contextlib.suppress(Exception):  # a missed renewal is made up for by the next
                renew()

    renew()
    keeper = threading.Thread(target=keep, daemon=True, name="lease")
    keeper.start()
    try:
        yield driver
    finally:
        done.set()
        keeper.join()
        if (study.user_attrs.get(ATTRIBUTE) or {}).get("token") == driver.token:
            study.set_user_attr(ATTRIBUTE, None)


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
