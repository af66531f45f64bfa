"""Ray up and down, with what its dashboard shows of the study; and optuna-dashboard beside it."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import ray
import torch
from optuna.storages import RDBStorage
from ray.job_config import JobConfig

from search.config import ResourceConfig
from search.errors import SearchError
from search.signals import SIGNALS

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Slots:
    """How many runs go at once, and what each of them gets."""

    concurrent: int
    cpus: int
    gpus: float

    @classmethod
    def of(cls, given: ResourceConfig, device: str) -> "Slots":
        """Raises SearchError where the machine has not what is asked for."""
        available = len(os.sched_getaffinity(0))
        if given.cpus > available:
            raise SearchError(
                f"--resources.cpus is {given.cpus}, but this machine has {available} CPUs"
            )
        gpus = (1.0 if device == "cuda" else 0.0) if given.gpus is None else given.gpus
        if gpus > 1 and gpus != int(gpus):
            raise SearchError(
                f"--resources.gpus is {gpus:g}; above one it must be a whole number of GPUs"
            )
        most = available // given.cpus
        if gpus:
            count = torch.cuda.device_count()
            if gpus > count:
                raise SearchError(
                    f"--resources.gpus is {gpus:g} per trial, but this machine has {count} GPUs"
                )
            most = min(most, count * int(1 / gpus) if gpus <= 1 else int(count // gpus))
        concurrent = given.concurrent or most
        if concurrent > most:
            raise SearchError(
                f"--resources.concurrent is {concurrent}, but the machine has room for {most} "
                f"trials of {given.cpus} CPUs and {gpus:g} GPUs"
            )
        return cls(concurrent, given.cpus, gpus)


@contextlib.contextmanager
def ray_cluster(
    study: str, slots: Slots, dashboard: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """A fresh Ray on this machine. Its workers inherit nothing that names the database."""
    with _ray(
        address="local",
        num_cpus=slots.concurrent * slots.cpus,
        num_gpus=None if slots.gpus else 0,
        include_dashboard=dashboard,
        dashboard_host=LOCALHOST,
        job_config=JobConfig(metadata={"study": study}),
    ) as context:
        if dashboard:
            say(f"Ray dashboard: http://{context.dashboard_url} (token: ray get-auth-token)")
        yield


@contextlib.contextmanager
def _ray(**options: Any) -> Iterator[Any]:
    """Ray as long as the context lasts, with this process's own signal handlers."""
    quiet_ray()
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    context = ray.init(logging_level=logging.ERROR, **options)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)  # Ray puts its own in their place
    try:
        yield context
    finally:
        ray.shutdown()


@contextlib.contextmanager
def ray_for_workers(
    count: int, cpus: int | None, gpus: float, address: str | None
) -> Iterator[int]:
    """Ray with room for `count` workers; gives the CPUs of each. A cluster at `address` is joined.

    Raises SearchError where this machine has not what is asked for.
    """
    available = len(os.sched_getaffinity(0))
    each = cpus or max(1, available // count)
    if address is None and count * each > available and cpus is not None:
        raise SearchError(
            f"--workers.cpus is {cpus} for each of {count} workers, but this machine has "
            f"{available} CPUs"
        )
    if gpus and address is None and count * gpus > torch.cuda.device_count():
        raise SearchError(
            f"--workers.count is {count}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                _ray(
                    address=address or "local",
                    num_cpus=None if address else max(available, count * each),
                    include_dashboard=None if address else False,
                    log_to_driver=False,  # Ray Train's own actors are loud; workers use a file
                )
            )
        except ConnectionError as problem:
            raise SearchError(
                f"--workers.address is {address!r}, but no Ray cluster answers there; start one "
                "(ray start --head), or leave it out"
            ) from problem
        yield each


def quiet_ray() -> None:
    """What Ray reads from the environment before it starts."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not worth a line."""


@contextlib.contextmanager
def study_dashboard(storage: RDBStorage, say: Callable[[str], None]) -> Iterator[None]:
    """optuna-dashboard on the study, served from this process so that its URL stays here."""
    import optuna_dashboard  # slow: brings scikit-learn, and most studies show no dashboard

    logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
    server = make_server(LOCALHOST, 0, optuna_dashboard.wsgi(storage), handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="dashboard")
    thread.start()
    say(f"optuna-dashboard: http://{LOCALHOST}:{server.server_port}/dashboard")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
