"""Plans of studies: from a configuration alone, without any work, and what they refuse."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distill.recipes import CorrectionSettings
from experiments.configs import write_plans
from experiments.run_search import main
from pruning.families import forward_flops
from search.config import PerLayerConfig, PlannedMachine, SearchConfig, SpaceConfig
from search.finals.outlook import LastRuns
from search.plan import StudyPlan
from tests.driver import ROOT
from tests.search.conftest import SIZES
from workspace.models import ModelSource

STATED = PlannedMachine(memory_gb=40.0, tflops=100.0, cpus=8)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """The config.json of a teacher, and nothing else."""
    LlamaConfig(**SIZES, max_position_embeddings=64).save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


@pytest.fixture
def config(teacher: str, tmp_path: Path) -> Callable[..., SearchConfig]:
    def of(**settings: object) -> SearchConfig:
        given = {"short_tokens": 2_048, "full_tokens": 8_192, "plan_for": STATED, "device": "cpu"}
        given |= {"workspace": tmp_path / "workspace"} | settings
        return SearchConfig(teacher, "no-text", **given)  # type: ignore[arg-type]

    return of


def test_the_page_of_plans_is_that_of_the_code() -> None:
    assert set(write_plans.TEACHERS) == {path.stem for path in write_plans.CONFIGS.glob("*.yaml")}
    written = write_plans.PAGE.read_text("utf-8")
    assert written == write_plans.page(), "run python experiments/configs/write_plans.py"
    assert "error:" not in written and "not known" not in written


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("mistral-nemo-12b", 12_247_782_400),
        ("qwen3-8b", 8_190_735_360),
        ("nemotron-4-15b", 15_628_775_424),
        ("smollm2-1.7b", 1_711_376_384),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_the_teachers_have_the_parameters_that_they_are_published_with(
    name: str, parameters: int
) -> None:
    folder = ROOT / "experiments" / "configs" / "teachers" / name
    assert ModelSource.described(str(folder), prunable=True).parameters == parameters


def test_a_plan_needs_a_configuration_alone_and_does_nothing(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--teacher", teacher, "--corpus", str(tmp_path / "nowhere"), "--plan", "--device"]
    options += ["cpu", "--short_tokens", "2048", "--full_tokens", "8192"]
    before = sorted(tmp_path.rglob("*"))
    status = main([*options, "--workspace", str(tmp_path / "workspace")])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    assert "the teacher's weights are not here; give --plan_for.tflops" in said.out
    for word in ("space: layers", "inside", "| trials", "| weights", "| targets", "evidence short"):
        assert word in said.out
    assert sorted(tmp_path.rglob("*")) == before and not ray.is_initialized()


def test_what_does_not_fit_is_refused_after_the_plan_with_what_would(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--teacher", teacher, "--corpus", "none", "--plan", "--device", "cuda"]
    options += ["--block", "64", "--short_tokens", "16384", "--full_tokens", "65536"]
    options += ["--training.batch", "64", "--workspace", str(tmp_path / "workspace")]
    options += ["--plan_for.memory_gb", "0.63"]
    assert main(options) == 2
    said = capsys.readouterr()
    assert "| in all" in said.out and said.err.count("\n") == 1
    named = re.search(r"; give (.+), with which it takes 0\.\d GB$", said.err.strip())
    assert named is not None and "--training.micro_batch" in named[1]
    assert main([*options, *named[1].replace(" and ", " ").split()]) == 0


def test_an_unknown_model_is_not_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--teacher", "someone/something", "--corpus", "none", "--plan"]) == 2
    assert "a plan downloads nothing; give a folder with its config.json" in capsys.readouterr().err


def test_targets_that_do_not_fit_their_limit_are_refused(
    config: Callable[..., SearchConfig],
) -> None:
    plan = StudyPlan.of(config(targets_gb=1e-3, full_tokens=500_000))
    with pytest.raises(ValueError, match="--targets_gb"):
        plan.plan()


def test_the_work_is_what_a_study_runs(config: Callable[..., SearchConfig]) -> None:
    plan = StudyPlan.of(config(evidence="full", trials=5))
    parts = {part.what: part for part in plan.plan().work}
    outline = plan.outline
    last = LastRuns.of(outline.config, outline.step_tokens, staged=False)
    shape = outline.members[0].space.anchors()["uniform shrink"]
    assert shape is not None
    per_token = forward_flops(outline.teacher.config, shape, outline.block)
    full, trials = parts["full runs and evidence"], parts["trials"]
    assert (full.runs, full.tokens) == (last.count, last.tokens)
    assert trials.runs == 5 and trials.tokens == 5 * 2_048
    assert trials.training_flops == pytest.approx(3 * per_token * trials.tokens)
    # 100 TFLOP/s, evaluations included, as many runs at once as there are slots
    slots = 8
    assert trials.seconds == pytest.approx(trials.flops / 5 * -(-5 // slots) / 1e14)


def test_a_correction_is_work_and_memory(config: Callable[..., SearchConfig]) -> None:
    plain, corrected = (
        StudyPlan.of(config(correction=CorrectionSettings(tokens))).plan() for tokens in (0, 4_096)
    )
    first, *others = corrected.work
    assert (first.what, first.tokens) == ("correction of the teacher", 4_096)
    assert first.what in corrected.moments and first.what not in plain.moments
    assert corrected.disk["corrected teacher"] == corrected.disk["sorted teacher"] / 2
    assert sum(part.runs for part in others) > sum(part.runs for part in plain.work)


def test_of_a_family_all_members_are_planned(config: Callable[..., SearchConfig]) -> None:
    one, all_of = (
        {part.what: part for part in StudyPlan.of(settings).plan().work}
        for settings in (config(), config(family=[0.75, 0.5]))
    )
    assert all_of["trials"].runs == 2 * one["trials"].runs
    assert all_of["full runs and evidence"].runs == 2 * one["full runs and evidence"].runs + 1


def test_blocks_of_layers_are_work(config: Callable[..., SearchConfig]) -> None:
    space = SpaceConfig(per_layer=["ffn"])
    plan = StudyPlan.of(config(space=space, per_layer=PerLayerConfig(tokens=8_192))).plan()
    (blocks,) = [part for part in plan.work if part.what.startswith("blocks")]
    assert (blocks.runs, blocks.tokens) == (6, 8_192) and blocks.training_flops and blocks.seconds


def test_this_machine_is_timed_where_the_weights_are(
    config: Callable[..., SearchConfig], teacher: str
) -> None:
    model: Any = LlamaForCausalLM(LlamaConfig.from_pretrained(teacher))
    model.to(torch.bfloat16)
    model.save_pretrained(teacher)
    plan = StudyPlan.of(config(plan_for=PlannedMachine())).plan()
    assert all(part.seconds for part in plan.work) and plan.problem is None
    assert any("by a few steps of random weights" in line for line in plan.remarks)


def test_latencies_are_not_measured_for_a_plan(
    teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--teacher", teacher, "--corpus", "none", "--plan", "--budget.decode_ms", "3"]
    assert main(options) == 2
    assert "and decode_ms would have to be; leave them out" in capsys.readouterr().err
