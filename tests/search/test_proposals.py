"""Proposals: inside the budget, each once, decided by the record and the seed alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pruning import Architecture
from search.proposals import STARTUP_TRIALS, propose
from search.record import Record
from search.space import Space

RecordOn = Callable[..., Record]


def score(space: Space, architecture: Architecture) -> float:
    """A smooth objective whose best point is deep and narrow."""
    layers, hidden, _, ffn = space.position(architecture)
    return 0.1 + (1 - layers) ** 2 + (hidden - 0.4) ** 2 + 0.5 * (ffn - 0.3) ** 2


def shape_of(trial: Any) -> Architecture:
    return Architecture.from_dict(trial.user_attrs["architecture"])


def run(record: Record, count: int, interrupt: frozenset[int] = frozenset()) -> list[Architecture]:
    """Score `count` architectures one after the other; at some, the driver dies and comes back."""
    done: list[Architecture] = []
    while len(done) < count:
        trial = record.next_trial()
        if trial is None:
            break
        if len(done) in interrupt:
            interrupt -= {len(done)}
            record.live.clear()
            record.reclaim()
            continue
        done.append(shape_of(trial))
        record.complete(trial.number, score(record.space, done[-1]))
    return done


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_each_feasible_architecture_comes_once_then_none(
    small_space: Space, study: optuna.Study, record_on: RecordOn, sampler: str
) -> None:
    record = record_on(study, small_space, sampler=sampler)
    shapes = run(record, 1000)
    assert 8 <= len(shapes) == len(small_space.feasible)
    assert set(shapes) == set(small_space.feasible)
    assert record.exhausted


def test_failed_architectures_are_not_proposed_again(
    small_space: Space, study: optuna.Study, record_on: RecordOn
) -> None:
    record = record_on(study, small_space)
    seen = []
    while (trial := record.next_trial()) is not None:
        seen.append(shape_of(trial))
        record.fail(trial.number, "broken")
    assert len(seen) == len(set(seen)) == len(small_space.feasible)


def test_the_record_and_the_seed_decide(space: Space, record_on: RecordOn) -> None:
    first, again, other = (
        run(record_on(optuna.create_study(), space, seed=seed), 14) for seed in (0, 0, 1)
    )
    assert first == again
    assert not set(first[:4]) & set(other[:4])
    assert set(first) <= set(space.feasible)


def test_a_restart_goes_on_and_does_not_repeat(space: Space, record_on: RecordOn) -> None:
    whole = run(record_on(optuna.create_study(), space), 14)
    study = optuna.create_study()
    first = run(record_on(study, space), 9)
    rest = run(record_on(study, space), 5)
    assert first + rest == whole
    assert len(set(whole)) == 14


def test_interruptions_change_nothing(space: Space, record_on: RecordOn) -> None:
    calm = run(record_on(optuna.create_study(), space), 16)
    study = optuna.create_study()
    torn = run(record_on(study, space), 16, interrupt=frozenset({0, 3, 9, 13}))
    assert torn == calm
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 4
    assert states.count(TrialState.COMPLETE) == 16


def test_tpe_follows_the_scores(space: Space, record_on: RecordOn) -> None:
    found: dict[str, list[float]] = {}
    for sampler in ("tpe", "random"):
        found[sampler] = []
        for seed in range(4):
            record = record_on(optuna.create_study(), space, sampler=sampler, seed=seed)
            shapes = run(record, STARTUP_TRIALS + 16)
            scores = [score(space, shape) for shape in shapes[STARTUP_TRIALS:]]
            found[sampler].append(float(np.mean(scores)))
    assert np.mean(found["tpe"]) < 0.8 * np.mean(found["random"])
    assert max(found["tpe"]) < min(found["random"])


def test_trials_stopped_early_count_as_scored(
    space: Space, study: optuna.Study, record_on: RecordOn, result_of: Callable[..., Any]
) -> None:
    record = record_on(study, space)
    for _ in range(STARTUP_TRIALS):
        trial = record.next_trial()
        assert trial is not None
        record.report(trial.number, result_of({100: score(space, shape_of(trial))}))
        record.stop_early(trial.number)
    scored = propose(space, record.trials(), record.tried(), "tpe", 0)
    drawn = propose(space, record.trials(), record.tried(), "random", 0)
    assert scored in space.feasible
    assert scored not in record.tried()
    assert scored != drawn
