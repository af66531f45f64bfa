"""Which runs come after the trials, and what is called the best of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from common.errors import SearchStopped
from distill import Evaluation
from pruning import Architecture
from search.config.names import CANDIDATE, EVIDENCE, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION
from search.config.study import SearchConfig
from search.finals.outlook import LastRuns, Pace, shown_evidence
from search.finals.selection import FinalSelection, LastStage
from search.space.anchors import UNIFORM
from search.space.space import Space
from search.study.record import Record
from search.workers.full_runs import FullResult, FullRun

SHAPES = [Architecture(layers, 64, 8, 2, 96) for layers in range(1, 6)]
FIRST, SECOND, EVEN, DRAWN, OTHER = SHAPES
STEP = 128


def config(**given: Any) -> SearchConfig:
    tokens = {"short_tokens": 1000, "full_tokens": 8000}
    return SearchConfig(teacher="teacher", corpus="corpus", **tokens | given)


def selection(**given: Any) -> FinalSelection:
    """Two candidates; they and the uniform shrink were trials that came to their end."""
    stage = LastStage.of(config(**given), STEP)
    scored = {shape: np.ones(3) for shape in (FIRST, SECOND, EVEN)}
    return FinalSelection(stage, [FIRST, SECOND], EVEN, DRAWN, [], scored)


def result(run: FullRun, selection: Evaluation, tokens: int = 8000) -> FullResult:
    """A finished run with nothing but its scores."""
    return FullResult(
        run=run,
        directory=Path(),
        tokens=tokens,
        seconds=1.0,
        resumed_tokens=0,
        curve=[],
        selection=selection,
        answers=None,
    )


def results(kls: dict[FullRun, float]) -> dict[FullRun, FullResult]:
    return {run: result(run, Evaluation(*[np.full(3, kl)] * 3)) for run, kl in kls.items()}


def kinds(runs: list[FullRun]) -> list[tuple[str, int | None]]:
    return [(run.role, run.tokens) for run in runs]


def test_by_default_only_the_winners_run_in_full() -> None:
    found = selection()
    assert found.stage.winners == 2
    assert found.stage.short_tokens == 7 * STEP  # whole steps, as a trial's
    assert kinds(found.first_round()) == [
        (CANDIDATE, None),
        (CANDIDATE, None),
        (RANDOM_ARCHITECTURE, 7 * STEP),
    ]
    ranking = [found.run(CANDIDATE, FIRST), found.run(CANDIDATE, SECOND)]
    assert kinds(found.second_round(ranking)) == [(RANDOM_INITIALISATION, 7 * STEP)]


def test_what_was_stopped_early_is_run_to_the_end_of_a_short_run() -> None:
    found = selection()
    found = FinalSelection(found.stage, [FIRST, SECOND], EVEN, DRAWN, [], {SECOND: np.ones(3)})
    assert (UNIFORM, 7 * STEP) in kinds(found.first_round())
    won_by_one_that_was_stopped = [found.run(CANDIDATE, FIRST), found.run(CANDIDATE, SECOND)]
    second = found.second_round(won_by_one_that_was_stopped)
    assert found.short_run(CANDIDATE, FIRST) in second
    assert found.short_runs(won_by_one_that_was_stopped) == [
        found.short_run(UNIFORM, EVEN),
        found.short_run(RANDOM_ARCHITECTURE, DRAWN),
        found.scratch(FIRST),
        found.short_run(CANDIDATE, FIRST),
    ]


def test_full_evidence_runs_baselines_and_seeds_in_full() -> None:
    found = selection(evidence="full")
    runs = [*found.first_round(), *found.second_round([found.run(CANDIDATE, FIRST)])]
    assert {run.tokens for run in runs} == {None}
    assert [run.role for run in runs if run.shuffle] == [CANDIDATE, UNIFORM] * 2
    assert {run.role for run in runs if not run.shuffle} == {
        CANDIDATE,
        UNIFORM,
        RANDOM_ARCHITECTURE,
        RANDOM_INITIALISATION,
    }


def test_no_evidence_runs_only_winners_and_asked_seeds_are_kept() -> None:
    found = selection(evidence="none")
    assert [run.role for run in found.first_round()] == [CANDIDATE] * 2
    assert found.second_round([found.run(CANDIDATE, FIRST)]) == []
    seeds = selection(evidence="none", seeds=2).second_round([found.run(CANDIDATE, FIRST)])
    assert [(run.role, run.shuffle) for run in seeds] == [(CANDIDATE, 1)]


def test_a_longer_run_from_random_weights_is_run_when_asked_for() -> None:
    assert selection(scratch_tokens=16_000).scratch(FIRST).tokens == 16_000


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("more", [{}, {"seeds": 3}, {"scratch_tokens": 16_000}], ids=str)
def test_as_many_runs_are_planned_as_are_run(evidence: str, more: dict[str, Any]) -> None:
    if evidence == "none" and "scratch_tokens" in more:
        return
    settings = config(evidence=evidence, ties=0, **more)
    planned = LastRuns.of(settings, STEP, staged=False)
    found = selection(evidence=evidence, ties=0, **more)
    ranking = [found.run(CANDIDATE, FIRST), found.run(CANDIDATE, SECOND)]
    runs = [*found.first_round(), *found.second_round(ranking)]
    assert planned.count - planned.seldom == len(runs)
    assert planned.tokens == sum(run.tokens or 8000 for run in runs)


def test_full_runs_that_are_trials_are_not_planned_again() -> None:
    planned = LastRuns.of(config(full_tokens=1000, ties=0), STEP, staged=False)
    assert planned.stage.repeats_trials
    assert planned.count == 2  # the random architecture and random weights
    assert planned.tokens == 2000
    assert selection(full_tokens=1000).short_run(UNIFORM, EVEN) == FullRun(UNIFORM, EVEN)


def test_what_is_planned_is_said() -> None:
    planned = LastRuns.of(config(ties=0), STEP, staged=False)
    assert planned.describe() == "2 full runs of 8,000 tokens, 2 short runs of baselines of 896"
    assert "after 896 tokens" in shown_evidence(planned.stage)
    assert "3 seeds" in shown_evidence(LastStage.of(config(evidence="full"), STEP))
    assert "against nothing" in shown_evidence(LastStage.of(config(evidence="none"), STEP))


def test_runs_share_the_slots() -> None:
    pace = Pace(seconds_per_token=0.5, starting=1.0)
    assert pace.seconds([100, 100, 20], 2) == 51 + 11
    assert pace.seconds([], 2) == 0


@pytest.mark.parametrize(
    ("kls", "roles"),
    [
        ({EVEN: 0.3, DRAWN: 0.1}, [RANDOM_ARCHITECTURE, CANDIDATE, CANDIDATE]),
        ({EVEN: 0.1, DRAWN: 0.3}, [UNIFORM, CANDIDATE, CANDIDATE]),
        ({EVEN: 0.5, DRAWN: 0.5}, [CANDIDATE, CANDIDATE]),
        ({}, [CANDIDATE, CANDIDATE]),
    ],
)
def test_the_best_of_all_that_was_distilled_in_full_wins(
    kls: dict[Architecture, float], roles: list[str]
) -> None:
    found = selection(evidence="full")
    given = {found.run(CANDIDATE, FIRST): 0.45, found.run(CANDIDATE, SECOND): 0.4}
    given |= {found.run(found.role_of(shape), shape): kl for shape, kl in kls.items()}
    ranking = found.ranked(results(given))
    assert [run.role for run in ranking] == roles
    assert [run.architecture for run in ranking][-2:] == [SECOND, FIRST]


def test_random_weights_win_only_after_as_many_tokens() -> None:
    found = selection(evidence="full")
    ranking = [found.run(CANDIDATE, FIRST)]
    scratch = found.scratch(FIRST)
    assert found.with_scratch(ranking, results({ranking[0]: 0.4, scratch: 0.3}))[0] == scratch
    assert found.with_scratch(ranking, results({ranking[0]: 0.4, scratch: 0.5})) == ranking
    longer = selection(evidence="full", scratch_tokens=16_000)
    better = results({ranking[0]: 0.4, longer.scratch(FIRST): 0.3})
    assert longer.with_scratch(ranking, better) == ranking


def test_a_baseline_wins_where_every_candidate_diverged() -> None:
    found = selection(evidence="full")
    assert found.ranked(results({found.run(UNIFORM, EVEN): 9.0}))[0].role == UNIFORM
    with pytest.raises(SearchStopped, match="diverged"):
        found.ranked({})


def test_a_baseline_that_beats_every_candidate_after_its_short_run_runs_in_full() -> None:
    found = selection()
    kls = {FIRST: 0.4, SECOND: 0.5, EVEN: 0.6}
    assert found.promoted(kls | {DRAWN: 0.3}) == [FullRun(RANDOM_ARCHITECTURE, DRAWN)]
    assert found.promoted(kls | {DRAWN: 0.45}) == []
    assert selection(evidence="full").promoted(kls | {DRAWN: 0.3}) == []


def searched(record: Record, result_of: Callable[..., Any], count: int) -> None:
    for kl in range(count):
        trial = record.next_trial()
        if trial is None:
            return
        record.report(trial.number, result_of({100: 1.0 + kl}, done=True))
        record.complete(trial.number, 1.0 + kl, sequences=[1.0 + kl, 1.5 + kl])


@pytest.mark.parametrize("seed", range(4))
def test_the_random_architecture_is_no_candidate_and_not_the_uniform_shrink(
    small_space: Space,
    study: optuna.Study,
    record_on: Callable[..., Record],
    result_of: Callable[..., Any],
    seed: int,
) -> None:
    record = record_on(study, small_space, seed=seed, anchors=small_space.anchors())
    searched(record, result_of, 3)
    stage = LastStage.of(config(winners=2), STEP)
    found = FinalSelection.of(record, stage)
    assert found.random in small_space.feasible
    assert found.random not in {*found.candidates, found.uniform}
    assert FinalSelection.of(record, stage).random == found.random
    everything = LastStage.of(config(winners=100), STEP)
    searched(record, result_of, len(small_space.feasible))
    assert FinalSelection.of(record, everything).random is None


def test_certain_are_the_seeds_of_the_uniform_shrink_where_all_evidence_is_in_full(
    study: optuna.Study, space: Space, record_on: Callable[..., Record]
) -> None:
    record = record_on(study, space)

    def certain(**given: Any) -> list[FullRun]:
        return FinalSelection.certain(record, LastStage.of(config(**given), STEP))

    uniform = space.anchors()[UNIFORM]
    assert uniform is not None
    assert certain(evidence="full", seeds=2) == [
        FullRun(UNIFORM, uniform),
        FullRun(UNIFORM, uniform, 1),
    ]
    assert certain(evidence="short") == certain(evidence="none") == []
    assert certain(evidence="full", short_tokens=8000) == [], "the trial is the full run"
