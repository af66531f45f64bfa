"""Successive halving on the record: who is stopped.

What every stopper keeps to is in test_stopping.py.
"""

from collections.abc import Callable

import optuna
import pytest

from distill.recipes.reports import RunReport
from search.config.names import HALVING, HYPERBAND, NEVER
from search.config.sampler import SamplerSettings
from search.database.trial_facts import latest_by_origin
from search.space.anchors import UNIFORM
from search.space.space import Space
from search.study.early_stopping import Rungs, measured_steps
from search.study.record import Record

RecordOn = Callable[..., Record]
ResultOf = Callable[..., RunReport]
RUNGS = Rungs((100, 200), 2)


def rungs_of(
    stopper: str, steps: int, step_tokens: int, first_share: float, reduction: int
) -> Rungs:
    return Rungs.of(
        stopper, steps, step_tokens=step_tokens, first_share=first_share, reduction=reduction
    )


def start(record: Record) -> int:
    trial = record.next_trial()
    assert trial is not None
    return trial.number


@pytest.fixture
def record(space: Space, study: optuna.Study, record_on: RecordOn) -> Record:
    return record_on(study, space, sampler=SamplerSettings("random"), rungs=RUNGS)


def test_the_first_to_arrive_goes_on_and_the_worse_half_stops(
    record: Record, result_of: ResultOf
) -> None:
    stopped = [record.report(start(record), result_of({100: kl})) for kl in (9.0, 10.0, 8.0, 9.5)]
    assert stopped == [False, True, False, True]


def test_only_rungs_compare(record: Record, result_of: ResultOf) -> None:
    assert not record.report(start(record), result_of({150: 1.0}))
    assert not record.report(start(record), result_of({150: 5.0}))
    third = start(record)
    assert not record.report(third, result_of({100: 7.0}))
    assert not record.report(third, result_of({100: 7.0, 200: 7.0}))


def test_the_uniform_shrink_is_spared_but_counts_and_other_anchors_compete(
    space: Space, study: optuna.Study, record_on: RecordOn, result_of: ResultOf
) -> None:
    random = SamplerSettings("random")
    record = record_on(study, space, sampler=random, rungs=RUNGS, anchors=space.anchors())
    uniform, second = start(record), start(record)
    assert record.live[uniform].user_attrs["anchor"] == UNIFORM
    assert record.live[second].user_attrs["anchor"] != UNIFORM
    assert not record.report(second, result_of({100: 1.0}))
    assert not record.report(uniform, result_of({100: 50.0}))
    while record.live[number := start(record)].user_attrs.get("anchor"):
        assert record.report(number, result_of({100: 60.0}))
    assert not record.report(number, result_of({100: 2.0}))
    assert record.report(start(record), result_of({100: 60.0}))


def test_failed_trials_do_not_count(record: Record, result_of: ResultOf) -> None:
    for _ in range(3):
        failed = start(record)
        record.report(failed, result_of({100: 1.0}))
        record.fail(failed, "broken")
    assert not record.report(start(record), result_of({100: 5.0}))


def test_an_origin_counts_once(record: Record, result_of: ResultOf) -> None:
    """A trial and its continuation are one rival, and never rivals of each other."""
    record.report(start(record), result_of({100: 1.0}))
    for _ in range(2):
        record.queue.release()
        number = start(record)
        assert not record.report(number, result_of({100: 1.0}))
    assert list(latest_by_origin(record.trials())) == [0]
    assert record.report(start(record), result_of({100: 2.0}))
    assert not record.report(start(record), result_of({100: 1.5}))  # 2nd of 3: one in two stays


@pytest.mark.parametrize(
    ("stopper", "steps", "first", "reduction", "rungs"),
    [
        (HALVING, 64, 0.125, 2, (8, 16, 32)),
        (HALVING, 64, 0.125, 4, (8, 32)),
        (HALVING, 10, 0.3, 2, (3, 6)),
        (HALVING, 4, 0.01, 2, (1, 2)),
        (HALVING, 1, 0.5, 2, ()),
        (HALVING, 64, 0.25, 1, ()),
        (NEVER, 64, 0.25, 2, ()),
        (HYPERBAND, 64, 0.25, 2, (16, 32)),
    ],
)
def test_rungs(
    stopper: str, steps: int, first: float, reduction: int, rungs: tuple[int, ...]
) -> None:
    found = rungs_of(stopper, steps, 512, first, reduction)
    assert found.tokens == tuple(512 * step for step in rungs)
    measured = measured_steps(steps, 512, rungs=found, reports=1)
    assert measured == (*rungs, steps)
    assert set(measured) <= set(measured_steps(steps, 512, rungs=found, reports=3))


def test_hyperband_spares_some_candidates_the_first_rungs() -> None:
    rungs = rungs_of(HYPERBAND, 64, 1, 0.25, 2)
    first = [origin for origin in range(70) if rungs.applies(origin, 16)]
    second = [origin for origin in range(70) if rungs.applies(origin, 32)]
    assert 0 < len(first) < len(second) < 70
    assert set(first) < set(second), "who is compared early is compared again"
    halving = rungs_of(HALVING, 64, 1, 0.25, 2)
    assert all(halving.applies(origin, 16) for origin in range(70))


@pytest.mark.parametrize(
    ("trials", "spared", "tokens"),
    [
        (1, 0, 400),  # nobody to be compared with
        (2, 0, 2 * 100 + (1 + 1 / 2) * 300),
        (2, 2, 2 * 400),
        (4, 0, 4 * 100 + (1 + 1 / 2 + 2 / 3 + 2 / 4) * 300),
    ],
)
def test_the_tokens_that_halving_is_expected_to_take(
    trials: int, spared: int, tokens: float
) -> None:
    assert Rungs((100,), 2).expected_tokens(400, trials, never_stopped=spared) == pytest.approx(
        tokens
    )


def test_hyperband_is_expected_to_take_more_than_halving_and_never_stopping_takes_all() -> None:
    halving = rungs_of(HALVING, 8, 100, 0.125, 2).expected_tokens(800, 24, never_stopped=0)
    hyperband = rungs_of(HYPERBAND, 8, 100, 0.125, 2).expected_tokens(800, 24, never_stopped=0)
    assert halving < hyperband < 24 * 800
    assert rungs_of(NEVER, 8, 100, 0.125, 2).expected_tokens(800, 24, never_stopped=0) == 24 * 800


def test_the_largest_numbers_that_settings_take() -> None:
    for first_share, reduction in ((5e-324, 2), (0.999, 2**63 - 1), (5e-324, 2**63 - 1)):
        rungs = rungs_of(HYPERBAND, 2**62, 2**10, first_share, reduction)
        assert rungs.tokens == tuple(sorted(set(rungs.tokens)))
        assert sum(rungs.applies(origin, rungs.tokens[0]) for origin in range(100)) > 0
        assert 0 < rungs.expected_tokens(2**72, 100, never_stopped=0) <= 100 * 2**72
    steps = measured_steps(2**62, 1, rungs=Rungs((), 2), reports=1000)
    assert len(steps) == 1000 and steps[-1] == 2**62
    assert measured_steps(5, 1, rungs=Rungs((), 2), reports=2**62) == (1, 2, 3, 4, 5)
