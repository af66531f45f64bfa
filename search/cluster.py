"""Ray up and down, with what its dashboard shows of the study; and optuna-dashboard beside it."""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import ray
import torch
from optuna.storages import RDBStorage
from ray._private import ray_constants
from ray.job_config import JobConfig

from search.config_sections import ResourceConfig
from search.errors import SearchError
from search.machine import Machine
from search.signals import SIGNALS

LOCALHOST = "127.0.0.1"


ANSWER_SECONDS = 5.0
"""In which a cluster must answer; Ray itself would wait for a quarter of an hour."""
LOST_NODE_SECONDS = 20.0
"""In which Ray notices that a node is dead; until then it gives it work, which dies at once."""
OPTION = "--address"
UV_RUN = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
"""Has Ray upload the working directory of a command that `uv run` started, and start every worker
by `uv run` in a copy of it. The workers of a search are to be this Python with these packages."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or this one."""

    cpus: int
    gpus: int
    memory: float = math.inf
    """Bytes that trials may take."""

    def room(self, cpus: int, gpus: float) -> int:
        """How many trials of so many CPUs and GPUs it holds; a GPU fraction is of one GPU."""
        by_cpus = self.cpus // cpus
        if not gpus:
            return by_cpus
        by_gpus = self.gpus * int(1 / gpus + 1e-9) if gpus <= 1 else int(self.gpus // gpus)
        return min(by_cpus, by_gpus)


@dataclass(frozen=True)
class Slots:
    """How many runs go at once, and what each of them gets."""

    concurrent: int
    cpus: int
    gpus: float
    nodes: tuple[Node, ...] = field(default=(), compare=False)
    """Where they are."""
    memory: int = 0
    """Bytes that each reserves of its node, so that Ray puts no more on one than fit; 0: none."""

    @classmethod
    def of(
        cls,
        given: ResourceConfig,
        device: str,
        address: str | None = None,
        machine: Machine | None = None,
    ) -> "Slots":
        """What this `machine` has CPUs and GPUs for, or the Ray cluster at `address`.

        A trial never straddles nodes. Raises SearchError where there is not what is asked for.
        """
        gpus = (1.0 if device == "cuda" else 0.0) if given.gpus is None else given.gpus
        if gpus > 1 and gpus != int(gpus):
            raise SearchError(
                f"--resources.gpus is {gpus:g}; above one it must be a whole number of GPUs"
            )
        if address is None:
            machine = machine or Machine.here()
            nodes, where = [_this_machine(given.cpus, gpus, machine)], "the machine"
        else:
            nodes, where = cluster_nodes(address), f"the Ray cluster at {address}"
        most = sum(node.room(given.cpus, gpus) for node in nodes)
        if not most:
            largest = max(nodes, key=lambda node: (min(node.gpus, gpus), node.cpus))
            raise SearchError(
                f"--resources asks for {given.cpus} CPUs and {gpus:g} GPUs per trial, but no node "
                f"of {where} has as much; the largest has {largest.cpus} CPUs and {largest.gpus} "
                "GPUs"
            )
        concurrent = given.concurrent or most
        if concurrent > most:
            raise SearchError(
                f"--resources.concurrent is {concurrent}, but {where} has room for {most} trials "
                f"of {given.cpus} CPUs and {gpus:g} GPUs"
            )
        return cls(concurrent, given.cpus, gpus, tuple(nodes))


def _this_machine(cpus: int, gpus: float, machine: Machine) -> Node:
    """Raises SearchError where it has not what one trial needs."""
    if cpus > machine.cpus:
        raise SearchError(f"--resources.cpus is {cpus}, but this machine has {machine}")
    count = torch.cuda.device_count() if gpus else 0
    if gpus > count:
        raise SearchError(
            f"--resources.gpus is {gpus:g} per trial, but this machine has {count} GPUs"
        )
    return Node(machine.cpus, count, machine.memory)


def cluster_nodes(address: str) -> list[Node]:
    """The live nodes of the Ray cluster at `address`. Raises SearchError where none answers."""
    with _joined(address, OPTION):
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Node(int(each.get("CPU", 0)), int(each.get("GPU", 0)), each.get("memory", math.inf))
        for each in resources
    ]


@contextlib.contextmanager
def ray_cluster(
    study: str,
    slots: Slots,
    dashboard: bool,
    say: Callable[[str], None],
    address: str | None = None,
) -> Iterator[None]:
    """A fresh Ray on this machine, or the one at `address`, which is joined and left as it is.

    Workers of a fresh one inherit nothing that names the database. Raises SearchError where no
    cluster answers at `address`.
    """
    job = JobConfig(metadata={"study": study})
    if address is None:
        cluster = _ray(
            address="local",
            num_cpus=slots.concurrent * slots.cpus,
            num_gpus=None if slots.gpus else 0,
            include_dashboard=dashboard,
            dashboard_host=LOCALHOST,
            job_config=job,
        )
    else:
        cluster = _joined(address, OPTION, job_config=job)
    with cluster as context:
        if dashboard and context.dashboard_url:
            say(f"Ray dashboard: http://{context.dashboard_url} (token: ray get-auth-token)")
        yield


@contextlib.contextmanager
def _joined(address: str, option: str, **options: Any) -> Iterator[Any]:
    """The Ray cluster at `address` as long as the context lasts; `option` is where that stands.

    Raises SearchError where it cannot be joined.
    """
    _require_answer(address, option)
    with contextlib.ExitStack() as stack:
        try:
            context = stack.enter_context(_ray(address=address, **options))
        except ConnectionError:
            raise _silent(address, option) from None
        except (ValueError, RuntimeError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise SearchError(
                f"{option} is {address!r}, but the Ray cluster there cannot be joined: {reason}"
            ) from None
        yield context


def _require_answer(address: str, option: str) -> None:
    """Raises SearchError unless something listens at `address`, or it is "auto"."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise SearchError(
            f"{option} is {address!r}; it must be auto, or HOST:PORT of a Ray cluster that this "
            "machine is a node of"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError):
        raise _silent(address, option) from None


def _silent(address: str, option: str) -> SearchError:
    return SearchError(
        f"{option} is {address!r}, but no Ray cluster answers there; start one (ray start --head), "
        "set RAY_AUTH_MODE=token if it asks for a token, or leave the option out"
    )


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
    machine = Machine.here()
    available = machine.cpus
    each = cpus or max(1, available // count)
    if address is None and count * each > available and cpus is not None:
        raise SearchError(
            f"--workers.cpus is {cpus} for each of {count} workers, but this machine has {machine}"
        )
    if gpus and address is None and count * gpus > torch.cuda.device_count():
        raise SearchError(
            f"--workers.count is {count}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    # Ray Train's own actors are loud; workers use a file.
    cluster = (
        _ray(
            address="local",
            num_cpus=max(available, count * each),
            include_dashboard=False,
            log_to_driver=False,
        )
        if address is None
        else _joined(address, "--workers.address", log_to_driver=False)
    )
    with cluster:
        yield each


def quiet_ray() -> None:
    """What Ray reads from the environment before it starts, where the user has not set it, and what
    it warns of in vain."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of how long a report took: where it waits for the database, the driver says so.
    logging.getLogger("ray.tune.utils.util").setLevel(logging.ERROR)
    if os.environ.setdefault(UV_RUN, "0") == "0":
        setattr(ray_constants, UV_RUN, False)  # read from the environment when Ray was imported


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not worth a line."""


@contextlib.contextmanager
def study_dashboard(storage: RDBStorage, say: Callable[[str], None]) -> Iterator[None]:
    """optuna-dashboard on the study, served from this process so that its URL stays here."""
    import optuna_dashboard  # slow: brings scikit-learn, and most studies show no dashboard

    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)  # the browser says it
    server = make_server(LOCALHOST, 0, optuna_dashboard.wsgi(storage), handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="dashboard")
    thread.start()
    say(f"optuna-dashboard: http://{LOCALHOST}:{server.server_port}/dashboard")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
