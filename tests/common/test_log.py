"""Progress lines are log records: printed by the commands, anybody's to take."""

import logging
import os
import sys
import time

import pytest

from common.log import lines_beside, lines_to, plain_lines, timed_lines

LOGGER = logging.getLogger("search.run.study")


def test_lines_are_printed_with_the_minutes_since_the_start(
    capsys: pytest.CaptureFixture[str],
) -> None:
    LOGGER.info("before")
    with timed_lines():
        LOGGER.info("%s of %s", 1, 2)
        with timed_lines():  # no second time
            LOGGER.info("again")
        LOGGER.debug("too fine")
    LOGGER.info("after")
    assert capsys.readouterr().out == "[00:00] 1 of 2\n[00:00] again\n"


def test_time_is_counted_from_the_start_of_what_is_decorated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @timed_lines()
    def command() -> None:
        now[0] += 61.5
        LOGGER.info("100% done")

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    command()
    now[0] += 500
    command()
    assert capsys.readouterr().out == 2 * "[01:01] 100% done\n"


def test_a_line_comes_once_where_a_library_has_set_up_the_root(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with plain_lines():
        LOGGER.info("once")
    assert (capsys.readouterr().out, caplog.messages) == ("once\n", [])
    LOGGER.warning("and afterwards as before")
    assert caplog.messages == ["and afterwards as before"]


def test_a_command_whose_lines_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as output, plain_lines():  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            LOGGER.info("to nobody")
        monkeypatch.undo()
    assert ended.value.code == 1


def test_a_program_with_a_handler_of_its_own_takes_the_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken: list[str] = []

    class Taker(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            taken.append(record.getMessage())

    handler, logger = Taker(), logging.getLogger("search")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with timed_lines():
            LOGGER.info("mine")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert (taken, capsys.readouterr().out) == (["mine"], "")


def test_lines_go_beside_where_they_went() -> None:
    first: list[str] = []
    beside: list[str] = []
    logger = logging.getLogger("search.anything")
    with lines_to(first.append):
        logger.info("before")
        with lines_beside(beside.append):
            logger.info("inside")
        logger.info("after")
    assert (first, beside) == (["before", "inside", "after"], ["inside"])
