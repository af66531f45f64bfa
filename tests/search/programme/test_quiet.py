"""Lines that compiled code prints stay off the standard output, others arrive."""

import ctypes
import os
import subprocess
import sys
from typing import Any

import pytest
import scipy.optimize

from search.programme import SolverSettings, integer_programme, quiet, solve
from tests.search.programme.libraries import random_programme

PRINTING = """
import ctypes, runpy, sys, threading
libc = ctypes.CDLL(None)
quiet = runpy.run_path(sys.argv[1])["no_stray_lines"]
print("before")
libc.printf(b"compiled before\\n")
with quiet():
    libc.printf(b"stray\\n")
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
try:
    with quiet():
        libc.printf(b"stray, too\\n")
        raise ValueError
except ValueError:
    print("after")
libc.printf(b"compiled after\\n")
"""


def test_stray_lines_are_dropped_and_all_others_arrive() -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", PRINTING, quiet.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=buffered)
    assert sorted(done.stdout.splitlines()) == sorted(
        ["before", "compiled before", "from a thread", "after", "compiled after"]
    )
    assert done.stderr == ""


def test_a_closed_output_is_no_obstacle() -> None:
    code = (
        "import os, runpy, sys\nos.close(1)\n"
        "with runpy.run_path(sys.argv[1])['no_stray_lines']():\n    print('x', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, quiet.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == "x"


def test_the_solver_prints_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = scipy.optimize.milp

    def printing(*args: Any, **options: Any) -> Any:
        ctypes.CDLL(None).puts(b"HighsMipSolverData: a line of the solver")
        return solver(*args, **options)

    monkeypatch.setattr(integer_programme, "milp", printing)
    solve(random_programme(0), SolverSettings(solutions=2))
    print("ours", flush=True)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "ours\n"
