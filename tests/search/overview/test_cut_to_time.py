"""A last stage that is cut to the time that is left."""

from pathlib import Path
from typing import Any

import pytest

from search.config import BudgetConfig, SearchConfig
from search.finals.outlook import LastRuns, Pace
from search.overview import LastStageCut

STEP = 1024


def config_of(**changes: Any) -> SearchConfig:
    settings: dict[str, Any] = {
        "teacher": "teacher",
        "corpus": "corpus",
        "budget": BudgetConfig(parameters=0.5),
        "evidence": "full",
        "winners": 2,
        "short_tokens": 8 * STEP,
        "full_tokens": 64 * STEP,
        "time_budget": "3m",
        "workspace": Path("runs"),
    }
    return SearchConfig(**{**settings, **changes})


REPORT = 4.0


def seconds(config: SearchConfig) -> float:
    """A second for a step, one run after the other, and some for the report."""
    return REPORT + LastRuns.of(config, STEP, staged=False).seconds(Pace(1 / STEP), 1)


def cut(left: float, **changes: Any) -> LastStageCut:
    return LastStageCut.of(config_of(**changes), left, step=STEP, seconds=seconds)


def test_nothing_is_left_out_where_there_is_time() -> None:
    whole = seconds(config_of())
    found = cut(2 * whole)
    assert found.config == config_of() and found.left_out == ()
    assert list(found.lines(2 * whole)) == []


def test_what_tells_least_goes_first_and_the_end_is_in_time() -> None:
    whole = seconds(config_of())
    found = [cut(whole * share / 100) for share in range(100, 0, -1)]
    lengths = [len(each.left_out) for each in found]
    assert lengths == sorted(lengths), "less time never leaves more"
    least = config_of().short_tokens
    fitting = [one for one in found if one.config.full_tokens > least]
    assert len(fitting) > 50
    for share, each in zip(range(100, 0, -1), found, strict=True):
        if each in fitting:
            assert each.seconds <= whole * share / 100
    seeds = next(each for each in found if each.left_out)
    assert seeds.left_out == ("further training seeds",) and seeds.config.evidence == "full"
    last = found[-1]
    assert last.config.winners == 1 and last.config.evidence == "none"
    assert last.config.full_tokens == least and last.seconds <= whole / 100, "a trial's student"


def test_full_runs_are_as_long_as_there_is_time_for() -> None:
    found = cut(40.0)
    assert found.config.full_tokens == pytest.approx((40 / 1.1 - REPORT) * STEP, rel=0.05)
    assert found.left_out[-1].startswith("training of the winner beyond ")
    (line,) = found.lines(40.0)
    assert line.startswith("time: 40 s of --time_budget are left")
    assert "further training seeds" in line and "the same command again goes on" in line


def test_what_cannot_end_in_time_is_said() -> None:
    *_, warning = cut(1.0).lines(1.0)
    assert warning.startswith("warning: what is left to do takes about 4 s, longer than")


def test_what_was_not_asked_for_is_not_left_out() -> None:
    found = cut(5.0, evidence="none", winners=1, ties=0)
    assert len(found.left_out) == 1 and "training of the winner" in found.left_out[0]
