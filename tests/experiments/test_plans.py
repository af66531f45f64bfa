"""Plans of a cut and of a distillation: from configurations alone, and what they refuse."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from distill.recipes import CorrectionSettings
from distill.train import TrainingSettings
from experiments.distill.config import DistillConfig, WorkerConfig
from experiments.distill.plan import DistillPlan
from experiments.prune.config import PruneConfig
from experiments.prune.plan import CutPlan
from experiments.run_distill import main as distil
from experiments.run_prune import main as prune
from pruning import architecture_of
from pruning.families import forward_flops
from search.config import PlannedMachine
from tests.search.conftest import SIZES

STATED = ["--device", "cuda", "--plan", "--plan_for.tflops", "10"]


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    """config.json of a teacher and of a student, and nothing else."""
    for name, layers in (("teacher", 6), ("student", 3)):
        sizes = SIZES | {"num_hidden_layers": layers, "max_position_embeddings": 64}
        LlamaConfig(**sizes).save_pretrained(tmp_path / name)
    return str(tmp_path / "teacher"), str(tmp_path / "student")


@pytest.fixture
def distillation(models: tuple[str, str], tmp_path: Path) -> Callable[..., DistillPlan]:
    def of(**settings: Any) -> DistillPlan:
        machine = PlannedMachine(memory_gb=40.0, tflops=10.0)
        given: dict[str, Any] = {"tokens": 8_192, "device": "cuda", "plan_for": machine}
        return DistillPlan.of(
            DistillConfig(*models, "no text", tmp_path / "output", **given | settings)
        )

    return of


def test_a_plan_writes_nothing_and_needs_no_text(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    given = ["--teacher", models[0], "--corpus", "nowhere", "--output", str(tmp_path / "output")]
    given += [*STATED, "--plan_for.memory_gb", "40"]
    assert distil([*given, "--student", models[1]]) == 0
    assert prune([*given, "--layers", "3"]) == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    for word in ("| distillation", "| optimiser", "| importance", "| student", "not counted"):
        assert word in said


def test_the_work_of_a_distillation(distillation: Callable[..., DistillPlan]) -> None:
    plan = distillation(reports=2, correction=CorrectionSettings(4_096))
    work = {part.what: part for part in plan.plan().work}
    per_token = forward_flops(plan.student.config, architecture_of(plan.student.config), plan.block)
    assert work["distillation"].training_flops == pytest.approx(3 * per_token * 8_192)
    assert work["distillation"].forward_flops == pytest.approx(per_token * 2 * 16_384)
    assert work["distillation"].seconds == pytest.approx(work["distillation"].flops / 1e13)
    live = distillation(training=TrainingSettings(targets="live")).plan()
    targets = {part.what: part.tokens for part in live.work}["the teacher's targets"]
    assert targets == 16_384 + 32_768 and live.moments["the run"].teacher


def _shape(model: Any) -> Any:
    from pruning import architecture_of

    return architecture_of(model.config)


def test_workers_share_what_is_there_between_steps(
    distillation: Callable[..., DistillPlan],
) -> None:
    training = TrainingSettings(batch=8)
    alone, shared = (
        distillation(training=training, workers=WorkerConfig(count)).moments["the run"]
        for count in (1, 4)
    )
    assert shared.optimizer == alone.optimizer / 4 and shared.total < alone.total
    assert shared.process == alone.process


def test_a_run_that_no_setting_makes_fit_names_the_workers(
    distillation: Callable[..., DistillPlan],
) -> None:
    little = PlannedMachine(memory_gb=0.6005, tflops=1.0)
    plan = distillation(plan_for=little)
    assert re.search(r"give --workers.count .*\(an estimate\)", str(plan.problem))


def test_a_cut_says_with_which_batch_it_fits(models: tuple[str, str], tmp_path: Path) -> None:
    config = PruneConfig(
        models[0],
        "no text",
        tmp_path / "output",
        layers=3,
        device="cuda",
        batch=4096,
        plan_for=PlannedMachine(memory_gb=1.0, tflops=1.0),
    )
    plan = CutPlan.of(config)
    named = re.search(r"; give --batch (\d+)$", str(plan.problem))
    assert named is not None
    assert CutPlan.of(replace(config, batch=int(named[1]))).problem is None
    assert CutPlan.of(replace(config, batch=int(named[1]) * 2)).problem is not None
    assert CutPlan.of(replace(config, spread=True)).problem is None


def test_a_trial_is_not_cut_for_a_plan(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--teacher", models[0], "--student", f"{tmp_path}:3", "--corpus", "none"]
    assert distil([*given, "--output", str(tmp_path / "output"), "--plan"]) == 2
    assert "a trial, which is not cut for a plan" in capsys.readouterr().err
