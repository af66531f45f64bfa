"""The files of a finished study: the table's columns, a page that stands alone, a card."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from huggingface_hub import ModelCard, ModelCardData

from common.intervals import Interval
from search.report.outcome import covers
from search.report.verdicts import correction_verdicts
from search.results.cards import Origin, write_card
from search.results.results import (
    CorrectedStudent,
    CorrectedTeacher,
    CorrectionResult,
    Results,
    Scores,
)
from search.results.statements import BAD
from search.space.space import Space
from search.study.record import Record
from search.study.trials_table import write_trials
from tests.search.finished import ASKED, NASTY, RESULTS, interval

COLUMNS = [
    *("number", "state", "layers", "hidden", "heads", "kv_heads", "ffn", "parameters"),
    *("tokens", "kl", "ce", "top1_agreement", "seconds", "error"),
]


@pytest.fixture
def results() -> Results:
    return RESULTS


@pytest.fixture
def record(
    space: Space,
    study: optuna.Study,
    record_on: Callable[..., Record],
    result_of: Callable[..., Any],
) -> Record:
    record = record_on(study, space)
    for finish in ("complete", "stop", "fail", "run"):
        trial = record.next_trial()
        assert trial is not None
        if finish != "fail":
            record.report(trial.number, result_of({100: 1.5}))
        if finish == "complete":
            record.complete(trial.number, 1.5)
        elif finish == "stop":
            record.stop_early(trial.number)
        elif finish == "fail":
            record.fail(trial.number, f"it said {NASTY}, and\nmore")
    return record


def test_trials_csv(record: Record, tmp_path: Path) -> None:
    write_trials(record, tmp_path / "trials.csv")
    assert (tmp_path / "trials.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table.columns) == COLUMNS
    assert list(table.number) == [0, 1, 2, 3]
    assert list(table.state) == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert table.kl[0] == 1.5
    assert table.ce[0] == 2.5
    assert table.tokens[1] == 100
    assert table.error[2] == f"it said {NASTY}, and\nmore"
    assert table[["layers", "hidden", "heads", "kv_heads", "ffn", "parameters"]].notna().all(None)


def front_of(card: str) -> ModelCardData:
    front = ModelCard(card).data
    assert isinstance(front, ModelCardData)
    return front


def test_the_card(tmp_path: Path, results: Results) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    write_card(tmp_path, results, origin=Origin(NASTY, None, {}, NASTY, ()))
    card = (tmp_path / "README.md").read_text()
    assert front_of(card).model_name == f"{NASTY} as L3 H32 A4/2 F48"
    assert "L3 H32 A4/2 F48" in card
    assert "1,234" in card
    assert "21.7%" in card
    assert "AutoModelForCausalLM" in card
    rows = [line for line in card.splitlines() if line.startswith("| candidate 2")]
    assert rows
    assert "*" in rows[0], "one seed is marked"
    first, second = results.winners
    second = replace(second, checkpoint=Scores(kl=0.75, ce=1.0, top1_agreement=0.25))
    results = replace(results, winners=[first, second])
    write_card(tmp_path, results, origin=Origin("T", None, {}, "C", ()), student=second)
    text = (tmp_path / "README.md").read_text()
    assert "It is **candidate 2** of its study, not the winner" in text
    figures = front_of(text).eval_results or []
    assert [figure.metric_value for figure in figures] == [0.75, 1.0, 0.25, 2.7183]
    assert "http" not in card and "](" not in card


def corrected(low: float, high: float) -> CorrectionResult:
    mean = (low + high) / 2
    gained = CorrectedStudent(3.0, 3.0 - mean, Interval(mean, low, high, 1))
    return CorrectionResult(
        CorrectedTeacher(64, interval(2.5), interval(2.25), interval(-0.25)), gained
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.3, -0.1, "is better"), (-0.1, 0.1, "is no different"), (0.1, 0.3, "is worse")],
)
def test_what_correction_brought_is_said_by_its_interval(
    low: float, high: float, said: str
) -> None:
    teacher, student = correction_verdicts(corrected(low, high))
    assert "from 2.5000 to 2.2500" in teacher.text
    assert said in student.text and f"[{low:.4f}, {high:.4f}]" in student.text
    assert (student.tone == BAD) == ("Leave --correction.tokens out" in student.text) == (low > 0)


def test_no_correction_is_not_mentioned_and_a_lost_control_is() -> None:
    assert correction_verdicts(None) == []
    lines = correction_verdicts(replace(corrected(0, 1), student=None))
    assert "not known" in lines[1].text


@pytest.mark.parametrize(
    ("known", "asked", "enough"),
    [
        ({}, {"winners": 2, "evidence": "short", "seeds": 1}, True),
        ({}, {"winners": 3, "evidence": "full", "seeds": 3}, True),
        ({}, {"winners": 4, "evidence": "short", "seeds": 1}, False),
        ({}, {"winners": 2, "evidence": "short", "seeds": 4}, False),
        ({}, {"winners": 2, "evidence": "short", "seeds": 1, "full_tokens": 200}, False),
        ({"evidence": "short"}, {"winners": 2, "evidence": "full", "seeds": 3}, False),
        ({"evidence": "none"}, {"winners": 2, "evidence": "short", "seeds": 1}, False),
        ({"evidence": "short"}, {"winners": 2, "evidence": "none", "seeds": 1}, True),
    ],
)
def test_a_finished_study_holds_what_is_asked_for_or_goes_on(
    known: dict[str, Any], asked: dict[str, Any], enough: bool
) -> None:
    assert covers(replace(ASKED, **known), replace(ASKED, **asked)) is enough
