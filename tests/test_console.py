"""The console command hands its arguments on, and says what it does not know."""

import sys
from types import ModuleType

import pytest

from experiments.console import PROGRAMS, main


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gets_the_arguments_that_follow_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[str]] = []
    program = ModuleType(PROGRAMS[name])
    program.main = lambda given: taken.append(given) or 130  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PROGRAMS[name], program)
    monkeypatch.setattr(sys, "argv", ["espalier", name, "--seed", "3"])
    assert main([name, "--seed", "3"]) == 130
    assert taken == [["--seed", "3"]]
    assert sys.argv[0] == f"espalier {name}", "as the usage line has it"


def test_an_unknown_program_is_refused_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["distil"]) == 2
    assert "did you mean distill?" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "shown"), [([], "espalier search"), (["--version"], "espalier")])
def test_help_and_version(given: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 0
    assert shown in capsys.readouterr().out
