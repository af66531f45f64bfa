"""Lines in a pipe: never silent for long."""

import logging
import sys
import threading
import time
from collections.abc import Callable

import pytest

from common.log import timed_lines
from common.progress import Facts, tell
from common.terminal import plain
from common.terminal.display import display
from common.terminal.live import LiveView
from common.terminal.plain import PlainLines

LOGGER = logging.getLogger("search.run.study")


@pytest.fixture(autouse=True)
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "SILENCE", 0.05)
    monkeypatch.setattr(plain, "LOOK", 0.01)


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, however busy the machine is."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_silence_is_broken_with_what_runs() -> None:
    said: list[str] = []
    lines = PlainLines(said.append, lambda: "00:07")
    lines.line("begun")
    lines.take(Facts(work="importance", done=3.0, total=12.0, unit="tokens", left=600.0))
    until(lambda: len(said) >= 3)
    lines.close()
    assert said[0] == "[00:07] begun"
    assert set(said[1:]) == {"[00:07] importance: 3 of 12 tokens; about 10 min left"}
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count, "nothing comes after the end"


def test_what_prints_its_result_alone_is_not_interrupted() -> None:
    said: list[str] = []
    lines = PlainLines(said.append, lambda: "00:00")
    time.sleep(0.2)
    lines.close()
    assert said == []


def test_facts_are_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with timed_lines():
        tell(LOGGER, stage="trials", number=1, stages=2)
        LOGGER.info("one")
    assert capsys.readouterr().out.splitlines()[0] == "[00:00] one"
    assert not any(thread.name == "lines" for thread in threading.enumerate())


def test_a_command_that_nobody_reads_ends_with_its_next_line() -> None:
    def broken(line: str) -> None:
        raise SystemExit(1)

    lines = PlainLines(broken, lambda: "00:00")
    lines.take(Facts(work="trials"))
    until(lambda: not lines._watch.is_alive())
    with pytest.raises(SystemExit):
        lines.line("to nobody")
    lines.close()


@pytest.mark.parametrize(
    ("terminal", "environment", "live"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_there_is_a_view_on_a_terminal_alone(
    terminal: bool, environment: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    shown = display(lambda line: None, lambda: "00:00")
    shown.close()
    assert isinstance(shown, LiveView) == live
