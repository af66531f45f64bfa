"""Rounds of combinations: solved once, chosen by the KL before training, the same for all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from pruning import Architecture, Block
from search.config.per_layer import CONTROLS, PerLayerConfig
from search.database.coordination import Coordination
from search.per_layer import solving
from search.per_layer.combinations import Combination, Round, distance_to_nearest, write_round
from search.per_layer.recorded import record_trials, recorded_trials, with_trials
from search.per_layer.solving import Solving
from search.programme import solve
from tests.search.per_layer.test_depths import LLAMA, depth_of

WHOLE, SMALL, NO_FFN = Block(8, 2, 96), Block(4, 1, 48), Block(8, 2, 0)


def combination(*blocks: Block, control: str | None = None, score: float = 1.0) -> Combination:
    shape = Architecture.of_blocks(64, blocks)
    return Combination(architecture=shape, control=control, score=score)


DEEP = combination(WHOLE, SMALL, SMALL, score=2.0)
OTHER = combination(WHOLE, WHOLE, NO_FFN)
SHALLOW = combination(WHOLE, SMALL, score=0.5)
DRAWN = combination(NO_FFN, NO_FFN, SMALL, control="random", score=9.0)
FOUND = Round(1, (DEEP, OTHER, SHALLOW, DRAWN), ("depth 2: 1 of 2 combinations",))
KLS = {
    DEEP.architecture: 0.2,
    OTHER.architecture: float("inf"),
    SHALLOW.architecture: 0.6,
    DRAWN.architecture: 3.0,
}


def test_the_best_before_training_become_trials_and_all_controls() -> None:
    named = FOUND.named(KLS, count=2)
    assert named.trials == {
        "per-layer 1": DEEP.architecture,
        "per-layer 2": SHALLOW.architecture,
        "per-layer random": DRAWN.architecture,
    }
    assert OTHER.architecture not in named.zero_shot
    again = replace(FOUND, number=2).named(KLS, count=1)
    assert list(again.trials) == ["per-layer round 2, 1", "per-layer round 2, random"]
    assert any("per-layer 1: L3 H64" in line for line in named.lines())


def test_a_round_is_read_as_it_was_written(tmp_path: Path) -> None:
    named = FOUND.named(KLS, count=2)
    write_round(tmp_path / "round.json", named)
    assert Round.from_dict(json.loads((tmp_path / "round.json").read_text())) == named


def test_distances_are_to_solutions_of_the_same_depth() -> None:
    assert distance_to_nearest(DEEP, FOUND.combinations) == 2
    assert distance_to_nearest(SHALLOW, FOUND.combinations) is None
    assert distance_to_nearest(DRAWN, FOUND.combinations) == 2


def test_all_drivers_have_the_trials_of_the_first(study: optuna.Study) -> None:
    one, two = (Coordination(study, None, token=token) for token in ("one", "two"))
    first = FOUND.named(KLS, count=2)
    chosen = [c for c in first.combinations if c.name is not None]
    assert recorded_trials(one, 1, key="key") is None
    assert record_trials(one, 1, key="key", chosen=chosen) == tuple(chosen)
    elsewhere = FOUND.named(KLS | {OTHER.architecture: 0.1}, count=1)
    own = [c for c in elsewhere.combinations if c.name is not None]
    assert record_trials(two, 1, key="key", chosen=own) == tuple(chosen)
    assert recorded_trials(two, 1, key="of other settings") is None
    assert recorded_trials(two, 2, key="key") is None
    taken = with_trials(elsewhere, 1, chosen)
    assert taken.trials == first.trials
    assert [c.architecture for c in taken.combinations if c.name is None] == [OTHER.architecture]
    assert with_trials(None, 1, chosen).trials == first.trials


def scored(layer: int, block: Block) -> float:
    missing = 2 * (2 - block.kv_heads) + (96 - block.ffn) / 48
    return missing * (1 + layer) + 0.01 * block.heads


@pytest.fixture
def scored_depth() -> Any:
    depth = depth_of(LLAMA, list(range(6)), parameters=0.6)
    scores = [
        [scored(layer, block) for block in own]
        for layer, own in zip(depth.kept, depth.blocks, strict=True)
    ]
    return replace(depth, programme=depth.programme.scored(np.array(scores)))


def test_solutions_are_kept_as_they_are_found_and_never_found_again(
    scored_depth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Solving(PerLayerConfig(solutions=3), tmp_path, seed=0)
    kept: list[Any] = []

    def killed(programme: Any, settings: Any, **given: Any) -> Any:
        def keep(solution: Any) -> None:
            given["keep"](solution)
            kept.append(solution)
            if len(kept) == 2:
                raise KeyboardInterrupt

        return solve(programme, settings, **given | {"keep": keep})

    monkeypatch.setattr(solving, "solve", killed)
    with pytest.raises(KeyboardInterrupt):
        work.solved(scored_depth)
    found, ended = work.solved(scored_depth)
    assert len(kept) == 3, "the third is the only one that was left"
    monkeypatch.setattr(solving, "solve", solve)
    whole, _ = Solving(PerLayerConfig(solutions=3), tmp_path / "..", seed=0).solved(scored_depth)
    assert found == whole and not ended
    assert [one.score for one in found] == sorted(one.score for one in found)
    assert all(one.proven and one.architecture.per_layer for one in found)
    distances = [distance_to_nearest(one, found) for one in found]
    assert min(distance or 0 for distance in distances) >= 1


def test_solutions_around_a_student_differ_from_it(scored_depth: Any, tmp_path: Path) -> None:
    work = Solving(PerLayerConfig(solutions=2), tmp_path, seed=0)
    (best, *_), _ = work.solved(scored_depth)
    found, _ = work.solved(scored_depth, best.architecture)
    assert len(found) == 2 and best.architecture not in [one.architecture for one in found]
    assert work.solved(scored_depth)[0][0] == best, "the files of both are kept apart"


def test_controls_meet_the_budget_and_none_is_better_than_the_solution(
    scored_depth: Any, tmp_path: Path
) -> None:
    work = Solving(PerLayerConfig(solutions=1), tmp_path, seed=0)
    ((solution,), _), (controls, missing) = work.solved(scored_depth), work.controls(scored_depth)
    assert [one.control for one in controls] == list(CONTROLS) and not missing
    most = scored_depth.programme.budget.most("parameters")
    counts = {one.control: cost_of(scored_depth, one.architecture) for one in controls}
    assert all(0.95 * most <= count <= most for count in counts.values())
    assert max(counts.values()) == counts["largest"]
    assert all(one.score >= solution.score - 1e-9 for one in controls)


def test_a_control_that_there_is_not_is_said(tmp_path: Path) -> None:
    depth = depth_of(LLAMA, [0], parameters=0.5)
    near = depth.programme.costs_of((0,))["parameters"]
    band: dict[str, Any] = {"parameters": [near * 0.84, near * 0.95]}
    work = Solving(PerLayerConfig(controls=["no-ops"]), tmp_path, seed=0)
    controls, missing = work.controls(depth_of(LLAMA, [0], **band))
    assert not controls
    assert missing[0].startswith("no control no-ops: no combination of blocks meets the budget")


def cost_of(depth: Any, shape: Architecture) -> float:
    places = [own.index(shape.block(i)) for i, own in enumerate(depth.blocks)]
    return float(depth.programme.costs_of(tuple(places))["parameters"])


def test_solutions_are_tried_before_any_proposal_and_found_late_all_the_same(
    small_space: Any, study: optuna.Study, record_on: Callable[..., Any]
) -> None:
    record = record_on(study, small_space, anchors={"uniform shrink": small_space.feasible[0]})
    record.policy = replace(record.policy, solutions={"per-layer 1": DEEP.architecture})
    names = [record.next_trial().user_attrs.get("anchor") for _ in range(3)]
    assert names == ["uniform shrink", "per-layer 1", None]
    assert record.policy.named == 2
    late = {"per-layer 1": DEEP.architecture, "per-layer round 2, 1": OTHER.architecture}
    record.policy = replace(record.policy, solutions=late)
    assert record.next_trial().user_attrs["anchor"] == "per-layer round 2, 1"
