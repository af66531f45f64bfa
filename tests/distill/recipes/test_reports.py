"""Reports and results of runs as they are written down, by this version, older and newer ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill import DistillError, Evaluation
from distill.recipes.reports import RESULT_FILE, CurvePoint, RunProgress, RunReport, RunResult

POINTS = [
    CurvePoint(64, 2.5, kl=1.25, ce=3.0, top1_agreement=0.5),
    CurvePoint(128, None, kl=0.75, ce=2.5, top1_agreement=0.625),
]
REPORT = RunReport(
    tokens=128,
    resumed_tokens=64,
    seconds=3.5,
    busy_seconds=2.0,
    curve=POINTS,
    done=True,
    kl_sequences=[0.5, 1.0],
    scores=[("task:made", 0.25)],
)
SELECTION = Evaluation(kl=np.array([0.5, 1.0]), ce=np.zeros(2), top1_agreement=np.ones(2))
OF_AN_OLDER_VERSION: dict[str, Any] = {
    "tokens": 128,
    "seconds": 3.5,
    "resumed_tokens": 64,
    "curve": [{"tokens": 64, "loss": 2.5, "kl": 1.25, "ce": 3.0, "top1_agreement": 0.5}],
    "selection": {"kl": [0.5, 1.0], "ce": [0.0, 0.0], "top1_agreement": [1.0, 1.0]},
}


def test_what_a_study_keeps_of_a_report_is_read_as_it_was_written() -> None:
    kept = json.loads(json.dumps(REPORT.progress.to_dict()))
    assert RunProgress.from_dict(kept) == REPORT.progress
    assert kept["curve"][0] == OF_AN_OLDER_VERSION["curve"][0]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = RunResult.of(REPORT, SELECTION, answers=[-1.5, -2.0], from_trial=True)
    result.write(tmp_path)
    read = RunResult.read(tmp_path)
    assert read is not None and read.selection.to_dict() == SELECTION.to_dict()
    assert replace(read, selection=SELECTION) == result


def test_a_result_of_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / RESULT_FILE).write_text(json.dumps(OF_AN_OLDER_VERSION))
    read = RunResult.read(tmp_path)
    assert read is not None and read.curve == POINTS[:1] and read.tokens == 128
    assert read.answers is None and not read.from_trial


@pytest.mark.parametrize("text", [None, "", '{"tokens": 1'])
def test_one_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / RESULT_FILE).write_text(text)
    assert RunResult.read(tmp_path) is None


def test_what_a_newer_version_wrote_is_refused(tmp_path: Path) -> None:
    newer = {"schema_version": 2}
    (tmp_path / RESULT_FILE).write_text(json.dumps(OF_AN_OLDER_VERSION | newer))
    with pytest.raises(DistillError, match="done.json is of schema_version 2.*none above 1; use"):
        RunResult.read(tmp_path)
