"""What every stopper keeps to: who is never stopped, and that a restart changes no decision."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from distill.recipes.reports import RunReport
from search.config.names import HYPERBAND, NEVER, STOPPERS
from search.config.sampler import SamplerSettings
from search.space.anchors import UNIFORM
from search.space.space import Space
from search.study.early_stopping import Rungs, measured_steps
from search.study.record import Record
from search.study.stopping import load_pruner

RecordOn = Callable[..., Record]
ResultOf = Callable[..., RunReport]
STEPS, STEP_TOKENS = 8, 100


class Own(optuna.pruners.BasePruner):
    """A user's pruner: stops what is worse than one that came to its end was at that time."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        assert trial.last_step is not None
        now = trial.intermediate_values[trial.last_step]
        others = [t.intermediate_values for t in study.get_trials() if t.state.name == "COMPLETE"]
        return any(values.get(trial.last_step, np.inf) < now for values in others)


OWN = f"{__name__}:Own"
each = pytest.mark.parametrize("stopper", [*STOPPERS, OWN])


@pytest.fixture
def drive(space: Space, record_on: RecordOn) -> Callable[..., Record]:
    """Opens a study as a fresh driver does."""

    def open_it(study: optuna.Study, stopper: str, anchored: bool = False) -> Record:
        own = stopper not in STOPPERS
        if own:
            study.pruner = load_pruner(stopper)
        rungs = Rungs.of(
            NEVER if own else stopper,
            STEPS,
            step_tokens=STEP_TOKENS,
            first_share=0.125,
            reduction=2,
        )
        sampler = SamplerSettings("random")
        return record_on(
            study,
            space,
            sampler=sampler,
            rungs=rungs,
            own_pruner=own,
            max_retries=9,
            anchors=space.anchors() if anchored else {},
        )

    return open_it


def start(record: Record) -> int:
    trial = record.next_trial()
    assert trial is not None
    return trial.number


def curves(count: int) -> list[dict[int, float]]:
    """KL by tokens of so many candidates, which mostly keep their order as they learn."""
    rungs = Rungs.of(STOPPERS[0], STEPS, step_tokens=STEP_TOKENS, first_share=0.125, reduction=2)
    generator = np.random.default_rng(0)
    tokens = [
        step * STEP_TOKENS
        for step in measured_steps(STEPS, STEP_TOKENS, rungs=rungs, reports=STEPS)
    ]
    return [
        {t: float(final * (1 + 300 / t) * generator.uniform(0.9, 1.1)) for t in tokens}
        for final in generator.uniform(1, 2, count)
    ]


@each
def test_a_restart_changes_no_decision(
    drive: Callable[..., Record], result_of: ResultOf, stopper: str
) -> None:
    """Also where the driver dies over one trial several times: it counts once."""

    def reached(torn: bool) -> list[int]:
        study = optuna.create_study()
        record, found = drive(study, stopper), []
        for place, curve in enumerate(curves(12)):
            number = start(record)
            tokens = list(curve)
            for end in range(1, len(tokens) + 1):
                if torn and (place + end) % 3 == 0:
                    record = drive(study, stopper)
                    assert record.queue.reclaim() == 1
                    number = start(record)
                if record.report(number, result_of({t: curve[t] for t in tokens[:end]})):
                    record.stop_early(number)
                    break
            else:
                record.complete(number, curve[tokens[-1]])
            found.append(tokens[end - 1])
        assert record.finished() == 12
        return found

    calm, torn = reached(torn=False), reached(torn=True)
    if stopper != HYPERBAND:  # whose brackets follow the numbers, and an interruption takes one
        assert torn == calm
    for found in (calm, torn):
        assert (min(found) < STEPS * STEP_TOKENS) == (stopper != NEVER)
        assert max(found) == STEPS * STEP_TOKENS


@each
def test_neither_the_best_nor_the_uniform_shrink_is_stopped_nor_anything_by_what_is_not_finite(
    drive: Callable[..., Record], result_of: ResultOf, stopper: str
) -> None:
    record = drive(optuna.create_study(), stopper, True)
    uniform = start(record)
    assert record.live[uniform].user_attrs["anchor"] == UNIFORM
    tokens = list(curves(1)[0])
    for best in (1.0, 0.5):
        number = start(record)
        for end in range(1, len(tokens) + 1):
            assert not record.report(number, result_of(dict.fromkeys(tokens[:end], best)))
        record.complete(number, best)
        for end in range(1, len(tokens) + 1):
            assert not record.report(uniform, result_of(dict.fromkeys(tokens[:end], 9.0)))
    number = start(record)
    for kl in (float("nan"), float("inf")):
        assert not record.report(number, result_of({tokens[0]: kl}))
