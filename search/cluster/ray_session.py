"""Ray of this process: started on this machine or joined, and shut down again."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import ray
import torch
from ray._private import ray_constants

from common.errors import SearchError
from common.machine import Machine
from common.signals import SIGNALS
from search.cluster.worker_lines import worker_lines

ANSWER_SECONDS = 5.0
"""In which a cluster must answer; Ray itself would wait for a quarter of an hour."""
AUTH_MODE = "RAY_AUTH_MODE"
"""token where a cluster lets in only who has its token, which Ray sets for a new one; disabled
takes that away."""
UV_RUN = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
"""Has Ray upload the working directory of a command that `uv run` started, and start every worker
by `uv run` in a copy of it. The workers of a search are to be this Python with these packages."""


@contextlib.contextmanager
def ray_session(**options: Any) -> Iterator[Any]:
    """Ray as long as the context lasts, with this process's own signal handlers; `options` are
    those of `ray.init`, whose result it gives."""
    quiet_ray()
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    context = ray.init(logging_level=logging.ERROR, **options)
    for signum, handler in handlers.items():
        signal.signal(signum, handler)  # Ray puts its own in their place
    try:
        with worker_lines():
            yield context
    finally:
        ray.shutdown()


@contextlib.contextmanager
def joined_cluster(address: str, option: str, **options: Any) -> Iterator[Any]:
    """The Ray cluster at `address` as long as the context lasts.

    `option` is the user's option that gave the address, for messages; `options` are those of
    `ray.init`. Raises SearchError where the cluster cannot be joined.
    """
    _require_answer(address, option)
    with contextlib.ExitStack() as stack:
        try:
            context = stack.enter_context(ray_session(address=address, **options))
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
def ray_for_workers(
    count: int, cpus: int | None, *, gpus: float, address: str | None
) -> Iterator[int]:
    """Ray with room for `count` workers of one run; gives the CPUs of each.

    A cluster at `address` is joined. Raises SearchError where this machine has not what is asked
    for.
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
        ray_session(
            address="local",
            num_cpus=max(available, count * each),
            include_dashboard=False,
            log_to_driver=False,
        )
        if address is None
        else joined_cluster(address, "--workers.address", log_to_driver=False)
    )
    with cluster:
        yield each


def quiet_ray() -> None:
    """Set what Ray reads from the environment before it starts, where the user has not set it, and
    silence what it warns of in vain."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.setdefault(UV_RUN, "0") == "0":
        setattr(ray_constants, UV_RUN, False)  # read from the environment when Ray was imported
