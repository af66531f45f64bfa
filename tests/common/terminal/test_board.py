"""What is known of the work that runs, in one line and in one view."""

import io
import time

import pytest
from rich.console import Console

from common.progress import Facts, RunPace, duration
from common.terminal.board import Board
from common.terminal.live import MOST_RUNS, LiveView, drawn

TRIAL = "trial-0007 L5 H136 A4/2 F544"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def board(clock: list[float]) -> Board:
    """In the middle of the trials."""
    found = Board()
    found.take(Facts(stage="trials", number=3, stages=5))
    found.take(Facts(work="trials", done=7.0, total=24.0, unit="trials", left=23 * 60.0))
    found.take(Facts(begun=TRIAL, best="trial-0004 L6 H192, kl 0.6360", ended="2 stopped early"))
    found.take(Facts(at=RunPace(16_384, 65_536, 4_100, TRIAL)))
    return found


def test_one_line_says_all_of_it(board: Board) -> None:
    assert board.line() == (
        "stage 3 of 5, trials: 7 of 24 trials, 1 running, 4,100 tokens/s, "
        "trial-0004 L6 H192, kl 0.6360; about 23 min left"
    )


def test_time_goes_by_between_two_facts(board: Board, clock: list[float]) -> None:
    clock[0] += 22 * 60
    assert board.time_left == "about 60 s left"
    clock[0] += 58
    assert board.time_left == "longer than planned", "there are other stages"
    board.take(Facts(stage="test and report", number=5, left=0.0))
    assert board.time_left == "nearly done"
    clock[0] += 600
    assert board.time_left == "longer than planned", "no time is promised that is over"


def test_nothing_ends_before_its_runs(board: Board, clock: list[float]) -> None:
    clock[0] += 23 * 60
    board.take(Facts(at=RunPace(16_384, 65_536, 410, TRIAL)))
    assert board.time_left == "about 2 min left"
    clock[0] += 60
    assert board.time_left == "about 60 s left"


def test_other_work_takes_the_place_of_what_was_told_before(
    board: Board, clock: list[float]
) -> None:
    board.take(Facts(stage="test and report", number=5))
    clock[0] += 12
    assert board.line().startswith("stage 5 of 5, test and report: trial-0004")
    assert "12 s so far" in board.line() and not board.runs


def test_a_run_is_shown_from_its_beginning_to_its_end(board: Board) -> None:
    board.take(Facts(begun=TRIAL))
    assert board.runs[TRIAL] is not None, "a report does not begin it anew"
    board.take(Facts(over=TRIAL))
    board.take(Facts(at=RunPace(65_536, 65_536, 4_100, TRIAL)))
    assert not board.runs, "its last line may come after its end"


def test_a_command_without_stages_shows_its_run() -> None:
    board = Board()
    board.take(Facts(at=RunPace(10, 40, 5, "distillation")))
    assert board.line() == "training: 1 running, 5 tokens/s; about 6 s left"


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_view_fits_the_terminal(board: Board, width: int) -> None:
    for number in range(20):
        board.take(Facts(begun=f"trial-{number:04d} L5 H136 A4/2 F544"))
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=30, force_terminal=True, color_system=None)
    console.print(drawn(board, "12:34", width=width))
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "stage 3 of 5, trials" in text and "best" in text and "2 stopped early" in text
    assert text.count("\nruns") == MOST_RUNS and "12 more" in text
    if width >= 80:
        assert "12:34 gone, about 23 min left" in text
        assert "16,384 of 65,536 tokens, 4,100 tokens/s" in text


def test_lines_stay_and_the_view_goes() -> None:
    stream = io.StringIO()
    view = LiveView(stream, lambda: "00:01")
    view.line("before")
    view.take(Facts(stage="trials", number=1, stages=2))
    view.line("one more")
    view.line("7 of 9 tokens", Facts(at=RunPace(7, 9, 1, TRIAL)))
    view.close()
    said = [line for line in stream.getvalue().splitlines() if line.startswith("[00:01]")]
    assert said == ["[00:01] before", "[00:01] one more"], "how far a run is changes the view alone"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (1392, "23 min"), (6000, "1.7 h"), (300_000, "3.5 days")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_run_says_how_far_it_is_and_is_understood() -> None:
    pace = RunPace(16_384, 65_536, 4_100, TRIAL)
    assert RunPace.read(f"{pace}, 12 s left, kl 1.2", TRIAL) == pace
    assert pace.left == pytest.approx(11.99, abs=0.01)
    assert RunPace.read("written: student", TRIAL) is None
