"""Lines of Ray's workers, as lines of the driver: with its clock, and none of them at the end."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from common.progress import Facts, RunPace

LOGGER = logging.getLogger(__name__)
RAY_HANDLER = "ray_print_logs"
"""Name of Ray's own handler, which prints lines as they are."""
OF_RAY = ("autoscaler", "raylet")
"""In place of the number of a process, in lines that are no worker's."""


@contextlib.contextmanager
def worker_lines() -> Iterator[None]:
    """Log what workers print, inside; afterwards nothing: workers are ended then, and whatever
    Python says of that is no news. Ray must be up; where it prints no lines of workers, as a user
    may have set, this does not either."""
    with dispatcher._lock:
        own = dict(dispatcher.handlers).get(RAY_HANDLER)
    if own is None:
        yield
        return
    dispatcher.remove_handler(RAY_HANDLER)

    def log(data: Mapping[str, Any]) -> None:
        if data.get("pid") in OF_RAY:
            own(data)
            return
        name = data.get("actor_name") or data.get("task_name") or "worker"
        for line in filter(str.strip, data.get("lines", ())):
            pace = RunPace.read(line, name)
            LOGGER.info(f"{name}: {line}", extra={"facts": Facts(at=pace)} if pace else None)

    dispatcher.add_handler(RAY_HANDLER, log)
    try:
        yield
    finally:
        dispatcher.remove_handler(RAY_HANDLER)
