"""Progress lines are log records: printed by the commands, anybody's to take."""

import logging

import pytest

from common.log import timed_lines

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
