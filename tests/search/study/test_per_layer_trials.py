"""Per-layer architectures in a study: told, listed and read back, and nothing to samplers."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from distill.recipes.reports import RunReport
from pruning import Architecture, Block
from search.config.sampler import SamplerSettings
from search.config.space import SpaceConfig
from search.config.study import SearchConfig
from search.database.trial_facts import architecture_of
from search.finals.candidates import best_candidates, even_shrink_of
from search.finals.selection import FinalSelection, LastStage
from search.samplers.propose import Proposer
from search.space.space import Space
from search.study.observation import FINISHED, Observation
from search.study.record import Record
from search.study.trials_table import write_trials
from search.workers.full_runs import FullRun

ATTENTION_ONLY, FFN_ONLY, SMALL, WHOLE = (
    Block(8, 2, 0),
    Block(0, 0, 96),
    Block(4, 1, 40),
    Block(8, 2, 96),
)
SHAPE = Architecture.of_blocks(64, [ATTENTION_ONLY, FFN_ONLY, SMALL, SMALL, WHOLE])


@pytest.fixture
def record(small_space: Space, study: optuna.Study, record_on: Callable[..., Record]) -> Record:
    anchors = {"uniform shrink": small_space.feasible[0], "per-layer 1": SHAPE}
    return record_on(study, small_space, anchors=anchors)


@pytest.mark.filterwarnings("ignore:Some regimes")
def test_it_is_a_trial_like_others_without_a_place_on_the_axes(
    record: Record, result_of: Callable[..., RunReport], tmp_path: Path
) -> None:
    for kl in (2.0, 1.0, 3.0):
        trial = record.next_trial()
        assert trial is not None
        record.report(trial.number, result_of({100: kl}, done=True))
        record.complete(trial.number, kl)
    first, second, third = record.trials(TrialState.COMPLETE)
    assert architecture_of(second) == SHAPE
    assert second.params == second.distributions == {}
    assert second.user_attrs["parameters"] == record.space.parameter_count(SHAPE)
    assert first.params and third.params
    assert best_candidates(record, 2) == [SHAPE, architecture_of(first)]
    importances = optuna.importance.get_param_importances(record.study)
    assert set(importances) == set(first.params)
    write_trials(record, tmp_path / "trials.csv")
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table.blocks.isna()) == [True, False, True]
    row = table.iloc[1].dropna().to_dict()
    assert Architecture.from_dict(row) == SHAPE


def test_a_study_without_one_has_no_column_for_it(
    small_space: Space, study: optuna.Study, record_on: Callable[..., Record], tmp_path: Path
) -> None:
    record = record_on(study, small_space)
    record.next_trial()
    write_trials(record, tmp_path / "trials.csv")
    assert "blocks" not in pd.read_csv(tmp_path / "trials.csv").columns


@pytest.mark.parametrize("name", ["surrogate", "tpe", "grid"])
def test_it_changes_no_proposal(space: Space, name: str) -> None:
    seen = [
        Observation(shape, ((100, 1.0 + n),), (1.0 + n,), FINISHED)
        for n, shape in enumerate(space.feasible[::50][:8])
    ]
    propose = Proposer(space, SamplerSettings(name, startup=2), 0)
    layered = Observation(SHAPE, ((100, 0.1),), (0.1,), FINISHED)
    assert propose([*seen, layered]) == propose(seen)


def test_a_solution_whose_layers_are_alike_need_not_be_of_the_space(
    small_space: Space, study: optuna.Study, record_on: Callable[..., Record]
) -> None:
    alike = Architecture.of_blocks(64, [Block(8, 2, 40)] * 5)
    assert not alike.per_layer and alike not in small_space.parameters_of
    record = record_on(study, small_space, anchors={"per-layer 1": alike})
    trial = record.next_trial()
    assert trial is not None and trial.params == {}
    assert architecture_of(trial) == alike
    seen = [Observation(alike, ((100, 0.1),), (0.1,), FINISHED)]
    assert Proposer(small_space, SamplerSettings("tpe", startup=1), 0)(seen) is not None


def test_its_uniform_shrink_costs_about_as_much(record: Record) -> None:
    even, space = even_shrink_of(record, SHAPE), record.space
    assert not even.per_layer
    gaps = [
        abs(math.log(space.parameter_count(shape) / space.parameter_count(SHAPE)))
        for shape in (even, *space.feasible)
    ]
    assert gaps[0] <= min(gaps[1:]) + math.log(1 / 0.95)


def test_names_of_runs_are_short_and_different_however_many_layers_there_are() -> None:
    deep = [Architecture.of_blocks(64, [SMALL, WHOLE] * 60 + [last]) for last in (SMALL, FFN_ONLY)]
    names = [FullRun("candidate", shape).directory_name(1000) for shape in deep]
    assert len(set(names)) == 2 and max(map(len, names)) < 100


def test_the_best_of_the_other_kind_is_distilled_too(
    record: Record, result_of: Callable[..., RunReport]
) -> None:
    kls = {"uniform shrink": 3.0, "per-layer 1": 4.0}
    for _ in range(4):
        trial = record.next_trial()
        assert trial is not None
        kl = kls.get(trial.user_attrs.get("anchor", ""), 1.0 + trial.number / 10)
        record.report(trial.number, result_of({100: kl}, done=True))
        record.complete(trial.number, kl)
    settings = SearchConfig(
        teacher="teacher",
        corpus="corpus",
        space=SpaceConfig(per_layer=["ffn"]),
        ties=0,
        evidence="full",
        seeds=2,
    )
    stage = LastStage.of(settings, 128)
    selection = FinalSelection.of(record, stage)
    assert [shape.per_layer for shape in selection.candidates] == [False, False, True]
    assert (
        FinalSelection.of(record, replace(stage, per_layer=False)).candidates
        == (selection.candidates[:2])
    )
    ranking = [selection.run("candidate", shape) for shape in selection.candidates]
    again = [run.architecture for run in selection.second_round(ranking) if run.shuffle == 1]
    assert SHAPE in again and len(again) == len(set(again))
    longest = FinalSelection.largest(stage, several=False)
    assert len(longest.candidates) == len(selection.candidates) + stage.ties
    planned = longest.second_round([longest.run("candidate", s) for s in longest.candidates])
    assert len(planned) >= len(selection.second_round(ranking))
