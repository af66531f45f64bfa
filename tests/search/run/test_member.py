"""Rounds of combinations: each after the trials of the one before, while there is place for it."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from pruning import Architecture, Block
from search.finals.outlook import LastRuns
from search.per_layer.combinations import Combination, Round
from search.run import member
from search.run.member import MemberRun
from search.space.space import Space
from search.study.record import Record

SHAPES = [
    Architecture.of_blocks(64, [Block(8, 2, 96), Block(8, 2, ffn), Block(0, 0, 96)])
    for ffn in (24, 48)
]


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (9, ["round 1", "2 trials", "round 2", "9 trials"]),
        (3, ["round 1", "2 trials", "round 2", "9 trials"]),
        (2, ["round 1", "2 trials", "9 trials"]),
    ],
)
def test_another_round_waits_for_the_trials_and_needs_place_for_its_own(
    trials: int,
    expected: list[str],
    small_space: Space,
    study: optuna.Study,
    record_on: Callable[..., Record],
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
) -> None:
    policy = record_on(study, small_space, anchors={"shrink": small_space.feasible[0]}).policy
    done: list[str] = []

    def found(run: MemberRun, number: int, policy: Any) -> Round:
        done.append(f"round {number}")
        name = f"per-layer {number}"
        return Round(number, (Combination(architecture=SHAPES[number - 1], score=1.0, name=name),))

    def stage(run: MemberRun, policy: Any, last: Any, *, deadline: Any) -> Any:
        return SimpleNamespace(
            run=lambda target=9: done.append(f"{target} trials"), record=policy, forecast=None
        )

    monkeypatch.setattr(member, "trial_policy", lambda *_, **__: (replace(policy), None))
    monkeypatch.setattr(MemberRun, "_round", found)
    monkeypatch.setattr(MemberRun, "_trial_stage", stage)
    monkeypatch.setattr(MemberRun, "_ahead", lambda *_: None)
    monkeypatch.setattr(LastRuns, "of", lambda *_, **__: SimpleNamespace(stage=None))
    config = SimpleNamespace(trials=trials, per_layer=SimpleNamespace(rounds=2))
    context = SimpleNamespace(
        config=config,
        inputs=SimpleNamespace(config=config, per_layer=True),
        deadline=lambda _: None,
        step_tokens=1,
        outputs=lambda _: SimpleNamespace(make=lambda: None),
    )
    given: Any = SimpleNamespace(context=context)
    target: Any = SimpleNamespace(name=None, space=small_space)
    trained = MemberRun(given, target, study, ()).run_trials()  # type: ignore[arg-type]
    assert done == expected
    assert list(trained.record.solutions.values()) == SHAPES[: len(trained.rounds)]  # type: ignore[attr-defined]
    assert any("no round 2" in line for line in lines) == (trials == 2)
