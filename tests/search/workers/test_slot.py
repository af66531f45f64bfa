"""Slots: one run after the other in a process, each as if it had the process to itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.recipes import RunReport
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Checkpoint, architecture_of
from search.cluster.ray_errors import WorkerFailure
from search.cluster.resources import Resources
from search.workers.candidate import Job, SearchAssets
from search.workers.slot import Slot, TrialTask, WorkerTask
from tests.search.assets import BLOCK, write_assets

RESOURCES = Resources(1, 1, 0.0)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> SearchAssets:
    training = ResolvedTraining(batch=2, learning_rate=5e-3, precision="fp32")
    return write_assets(tmp_path_factory.mktemp("workspace"), training)


def slot_here() -> Any:
    """The class of the actor, in this process."""
    return Slot.__ray_metadata__.modified_class()  # type: ignore[attr-defined]


def trial(assets: SearchAssets, name: str, ffn: int, checkpoints: Path) -> TrialTask:
    """Of ten steps, with a report after five."""
    shape = replace(architecture_of(Checkpoint(assets.teacher).config), ffn=ffn)
    limits = RunLimits(20 * BLOCK, reports=2, checkpoint=checkpoints / name, checkpoint_seconds=0)
    job = Job(name, shape, limits)
    return TrialTask(study="test", job=job, assets=assets, resources=RESOURCES, output=None)


def test_a_trial_that_others_came_between_ends_as_one_that_was_left_alone(
    assets: SearchAssets, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone, shared = slot_here(), slot_here()
    first = trial(assets, "alone", 24, tmp_path)
    assert not alone.next_report(first).done
    undisturbed = alone.next_report(first)
    assert undisturbed.done
    capfd.readouterr()
    left, between = trial(assets, "left", 24, tmp_path), trial(assets, "between", 16, tmp_path)
    assert shared.next_report(left).curve == undisturbed.curve[:1]
    while not (other := shared.next_report(between)).done:
        pass
    assert other.curve[-1].kl != undisturbed.curve[-1].kl
    again: RunReport = shared.next_report(left)  # says once more where it was
    assert 0 < again.resumed_tokens == again.tokens and not again.done
    again = shared.next_report(left)
    assert again.done and again.curve == undisturbed.curve
    prefixes = [s for s in capfd.readouterr().out.splitlines() if s.startswith(":actor_name:")]
    assert [prefix.split(":")[2].split()[0] for prefix in prefixes] == ["left", "between", "left"]


def test_a_run_that_fails_is_told_in_one_line_and_the_next_one_goes_well(
    assets: SearchAssets, tmp_path: Path
) -> None:
    slot = slot_here()
    good = WorkerTask(
        job=trial(assets, "good", 16, tmp_path).job,
        assets=assets,
        resources=RESOURCES,
        output=tmp_path / "good",
    )
    failure = slot.train(replace(good, assets=replace(assets, sorted_teacher=tmp_path / "gone")))
    assert isinstance(failure, WorkerFailure) and "\n" not in failure.reason
    assert "gone" in failure.details
    assert slot.train(good) is None
    assert (tmp_path / "good" / "model" / "config.json").exists()
