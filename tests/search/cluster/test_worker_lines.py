"""Lines of workers: with the driver's clock, and none when they are ended."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from common.progress import RunPace
from search.cluster.worker_lines import RAY_HANDLER, worker_lines

NAME = "trial-0001 L6 H192"


@pytest.fixture
def by_ray() -> Iterator[list[Any]]:
    """What Ray's own handler is given."""
    given: list[Any] = []
    dispatcher.add_handler(RAY_HANDLER, given.append)
    yield given
    dispatcher.remove_handler(RAY_HANDLER)


def sent(*lines: str, **other: Any) -> None:
    dispatcher.emit({"pid": 12, "actor_name": NAME, "lines": list(lines), "is_err": False, **other})


def test_lines_of_workers_are_the_drivers(
    by_ray: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with worker_lines():
        sent("16 of 64 tokens, 8 tokens/s, 6 s left, kl 1.2", "something else")
        sent("a node is gone", pid="raylet")
    sent("Exception ignored in: <function shutdown>", "SystemExit: 15", is_err=True)
    assert caplog.messages == [
        f"{NAME}: 16 of 64 tokens, 8 tokens/s, 6 s left, kl 1.2",
        f"{NAME}: something else",
    ]
    told = [getattr(record, "facts", None) for record in caplog.records]
    assert told == [{"at": RunPace(16, 64, 8, NAME)}, None]
    assert [data["lines"] for data in by_ray] == [["a node is gone"]]


def test_where_ray_prints_no_lines_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with worker_lines():
        sent("a line")
    assert caplog.messages == []
