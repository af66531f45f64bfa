"""The last lines of a search."""

from pathlib import Path

import pytest

from search.overview import Result, next_steps


def result_of(root: Path, *, per_layer: bool = False) -> Result:
    return Result(root / "best", root / "report.html", per_layer=per_layer)


def test_paths_are_as_short_as_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load, report, more = next_steps([result_of(tmp_path / "runs")], trials=16)
    assert load.endswith('AutoModelForCausalLM.from_pretrained("runs/best")')
    assert report == "next: open runs/report.html in a browser"
    assert more.endswith("with more --trials (now 16) searches on")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert f'"{tmp_path}/runs/best"' in next_steps([result_of(tmp_path / "runs")], trials=1)[0]


def test_what_time_left_out_is_said_once() -> None:
    results = [result_of(Path("/a")), result_of(Path("/b"), per_layer=True)]
    *loads, reports, more = next_steps(results, trials=16, cut=["3 trials", "seeds", "seeds"])
    assert len(loads) == 2 and "load_student" in loads[1]
    assert "/a/report.html, /b/report.html" in reports
    assert more.endswith("goes on with what time left out: 3 trials, seeds")
