"""results.json: read as it was written, by later versions too, and refused where it is newer."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import SearchError
from search.needs.comparison import Estimates, PlannedMeasured
from search.results.results import (
    SCHEMA_VERSION,
    CorrectedStudent,
    CorrectedTeacher,
    CorrectionResult,
    Front,
    FrontPoint,
    LatencyResult,
    Results,
    TaskResults,
)
from search.results.results_file import read_results, write_results
from search.results.scratch_comparison import ScratchComparison
from search.results.statements import NOTE, Statement
from search.statistics.rank_correlation import Correlation, RankCorrelation
from tests.driver import ROOT
from tests.search.finished import RESULTS, SHAPE, interval

POINT = FrontPoint(3, SHAPE, {"kl": 0.5, "flops": 1.0})
ALL = replace(
    RESULTS,
    correction=CorrectionResult(
        CorrectedTeacher(64, interval(2.5), interval(2.25), interval(-0.25)),
        CorrectedStudent(3.0, 3.25, interval(-0.25)),
    ),
    scratch=ScratchComparison(200.0, 4.0, 2.0, 6400.0, False),
    fidelity=[RankCorrelation("a", "b", Correlation(0, 0, 0), Correlation(1, 1, 1), 9, 1, None)],
    front=Front(["kl", "flops"], [POINT], POINT, [0.5], [1.0, 2.0]),
    costs=[replace(RESULTS.costs[0], latency={"decode_ms": LatencyResult(1.0, None)})],
    estimates=Estimates(PlannedMeasured(2e9, 1.8e9), PlannedMeasured(30.0, 25.0)),
)


@pytest.mark.parametrize("results", [RESULTS, ALL, replace(RESULTS, tasks=TaskResults())])
def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def changed(path: Path, without: tuple[str, ...] = (), **changes: Any) -> Path:
    """A file of `ALL`, changed."""
    write_results(ALL, path)
    known = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: known[key] for key in known if key not in without}))
    return path


def test_what_earlier_versions_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    new = ("schema_version", "evidence", "short", "searched", "engines", "estimates")
    asked = json.loads(changed(path).read_text())["asked"]
    del asked["evidence"], asked["seeds"]  # of before --evidence, with seeds in its fingerprint
    said = ["Of before tones."]
    older = read_results(changed(path, without=new, asked=asked, verdicts=said))
    before = replace(ALL, short=None, searched=None, engines=[], estimates=None)
    assert older == replace(before, verdicts=[Statement(NOTE, said[0])])


def test_what_a_newer_version_wrote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=f"schema version {SCHEMA_VERSION + 1}, and this"):
        read_results(changed(tmp_path / "results.json", schema_version=SCHEMA_VERSION + 1))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"asked": 3}', '{"schema_version": 1}'])
def test_what_cannot_be_read_is_no_result(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    assert read_results(tmp_path / "results.json") is None
    assert read_results(tmp_path / "nothing.json") is None
    assert read_results(changed(tmp_path / "torn.json", without=("winners",))) is None


def test_the_documentation_names_every_field() -> None:
    section = (ROOT / "docs" / "search.md").read_text().partition("### results.json")[2]
    documented = re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert documented == [field.name for field in fields(Results)]
