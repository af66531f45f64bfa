"""How long a study still takes, by the trials that are known."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from distill.recipes import RunReport
from search.database.coordination import Coordination
from search.overview import FULL_RUNS, REPORT, TRIALS, StudyClock
from search.run.forecast import Forecast
from search.space.space import Space
from search.study.record import Record

TRIAL_TOKENS, FULL_TOKENS, TRIALS_ASKED = 1_000, 10_000, 4


@pytest.fixture
def forecast_of() -> Callable[[Record], Forecast]:
    def make(record: Record) -> Forecast:
        config = SimpleNamespace(
            trials=TRIALS_ASKED,
            short_tokens=TRIAL_TOKENS,
            splits=SimpleNamespace(test_tokens=0),
            tasks=None,
        )
        study: Any = SimpleNamespace(
            context=SimpleNamespace(config=config, resources=SimpleNamespace(concurrent=1)),
            clock=StudyClock(dict.fromkeys((TRIALS, FULL_RUNS, REPORT), 7.0)),
        )
        study.clock.begin(TRIALS)
        last: Any = SimpleNamespace(
            count=1, seconds=lambda pace, slots: pace.seconds([FULL_TOKENS], slots)
        )
        return Forecast(study, record, last=last)

    return make


def reported(tokens: int, seconds: float, result_of: Callable[..., RunReport]) -> RunReport:
    return replace(result_of({tokens: 1.0}), seconds=seconds, busy_seconds=seconds)


def test_a_start_goes_by_its_own_speed_as_soon_as_it_knows_it(
    small_space: Space,
    study: optuna.Study,
    record_on: Callable[..., Record],
    forecast_of: Callable[[Record], Forecast],
    result_of: Callable[..., RunReport],
) -> None:
    """A start before was on a busy machine, where a trial took an hour."""
    earlier = record_on(study, small_space, coordination=Coordination(study, None, token="earlier"))
    slow = earlier.next_trial(TRIALS_ASKED)
    assert slow is not None
    earlier.report(slow.number, reported(TRIAL_TOKENS, 3600.0, result_of))
    earlier.complete(slow.number, 1.0, sequences=[1.0], scores={})

    record = record_on(study, small_space)
    forecast = forecast_of(record)
    assert "about 13.0 h left" in forecast.words(1.0), "three trials, and a run as long as ten"
    fast = record.next_trial(TRIALS_ASKED)
    assert fast is not None
    record.report(fast.number, reported(500, 5.0, result_of))
    forecast.words(1.0)
    left = forecast.study.clock.left(25.0)
    assert left == pytest.approx(25 + 100 + 5, abs=3), "10 s for every 1,000 tokens"
    assert forecast.words(1.0) == "; about 2 min left in all"
