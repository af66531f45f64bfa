"""SmolLM2 as a teacher: what is missing is said, and the search's settings are settings."""

from pathlib import Path

import pytest

from experiments.command import parse
from experiments.smollm2 import make_teacher
from search.config import SearchConfig
from tests.driver import ROOT

SETTINGS = ROOT / "experiments" / "smollm2" / "search.yaml"


def test_missing_packages_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_teacher, "find_spec", lambda _: None)
    monkeypatch.setattr("sys.argv", ["make_teacher.py", "--output", str(tmp_path / "teacher")])
    assert make_teacher.main() == 2
    assert f"are needed: {make_teacher.INSTALL}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_its_search_asks_for_seventy_percent() -> None:
    config = parse(SearchConfig, ["--config", str(SETTINGS), "--corpus", "c"])
    assert config.budget.parameters == 0.7 and config.teacher == "runs/smollm2/teacher"
