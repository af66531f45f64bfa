"""Stages of a study, said before any of them begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from search.cluster.resources import Resources
from search.config import SearchConfig
from search.needs.device import PlannedDevice
from search.overview import FULL_RUNS, PREPARATION, REPORT, TRIALS, stage_of
from search.plan import Done, Speed, planned_stages, speed_of, stage_lines
from search.plan.reading import outlined
from search.plan.speed import NOT_KNOWN
from search.plan.stages import StagePlan, shown_passes
from tests.search.conftest import SIZES

TWO = Resources(concurrent=2, cpus=1, gpus=0)
NOTHING = Done()
MEASURED = Speed(1e-9, 1e-9, 1e-9, 0.0, "by a measurement")


@pytest.fixture
def stages(tmp_path: Path) -> Callable[..., list[StagePlan]]:
    LlamaConfig(**SIZES, max_position_embeddings=64).save_pretrained(tmp_path / "teacher")

    def of(speed: Speed = MEASURED, done: Done = NOTHING, **settings: Any) -> list[StagePlan]:
        given = {"short_tokens": 2_048, "full_tokens": 8_192, "device": "cpu", **settings}
        config = SearchConfig(str(tmp_path / "teacher"), "no-text", **given)
        outline = outlined(config, PlannedDevice.of("cpu", config.plan_for))
        return planned_stages(outline, TWO, TWO, speed=speed, done=done)

    return of


def test_the_stages_of_a_study_in_order(stages: Callable[..., list[StagePlan]]) -> None:
    found = stages(trials=6)
    assert [stage.name for stage in found] == [PREPARATION, TRIALS, FULL_RUNS, REPORT]
    assert "importance" in found[0].what and "the teacher's targets" in found[0].what
    assert found[1].what.startswith("6 trials, ") and "by how many stop early" in found[1].what
    assert "evidence short" in found[2].what and "full run" in found[2].what
    assert all(stage.seconds for stage in found)


def test_each_member_of_a_family_has_its_own(stages: Callable[..., list[StagePlan]]) -> None:
    found = stages(family=[0.8, 0.6], trials=3)
    names = [stage.name for stage in found]
    kinds = (TRIALS, FULL_RUNS, REPORT)
    assert names == [PREPARATION, *(stage_of(k, m) for m in ("0.8", "0.6") for k in kinds)]


def test_what_earlier_starts_did_takes_no_time(stages: Callable[..., list[StagePlan]]) -> None:
    whole = stages(trials=6)
    done = Done(prepared=True, trials={None: 4}, full=1)
    found = stages(trials=6, done=done)
    assert "an earlier start" in found[0].what
    assert found[1].what.startswith("2 trials, 4 of 6 finished")
    assert ", 1 finished" in found[2].what
    for before, after in zip(whole[:3], found[:3], strict=True):
        assert after.seconds is not None and before.seconds is not None
        assert after.seconds < before.seconds


def test_no_time_is_told_that_is_not_known(stages: Callable[..., list[StagePlan]]) -> None:
    found = stages(speed=NOT_KNOWN)
    assert [stage.seconds for stage in found] == [None] * 4


def test_the_lines_say_the_whole(stages: Callable[..., list[StagePlan]], tmp_path: Path) -> None:
    found = stages(trials=6)
    config = SearchConfig(str(tmp_path / "teacher"), "x", short_tokens=2_048, full_tokens=8_192)
    outline = outlined(config, PlannedDevice.of("cpu", config.plan_for))
    lines = list(stage_lines(found, basis="a test", outline=outline, train_tokens=4_096))
    assert lines[0].startswith("plan: 4 stages, about ") and lines[0].endswith(" in all (a test)")
    assert lines[2].startswith("plan: 2 trials: 6 trials, ")
    assert lines[-1] == (
        "plan: 4,096 training tokens are packed: a trial is 0.5 passes over them, a full run is "
        "2.0 passes"
    )


def test_a_run_gets_its_share_of_the_machine() -> None:
    speed = speed_of(1e12, TWO, threads=4)
    assert speed.training == pytest.approx(1e-12)
    assert speed.reading == pytest.approx(0.25e-12), "by all threads of the machine"
    gpu = speed_of(1e12, Resources(concurrent=2, cpus=1, gpus=0.5), threads=4)
    assert gpu.training == pytest.approx(2e-12) and gpu.reading == pytest.approx(1e-12)
    assert speed_of(None, TWO, threads=4) == NOT_KNOWN


@pytest.mark.parametrize(
    ("passes", "shown"), [(12.06, "12.1 passes"), (1, "1.0 pass"), (0.004, "0.004 passes")]
)
def test_epochs_in_words(passes: float, shown: str) -> None:
    assert shown_passes(passes) == shown
