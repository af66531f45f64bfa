"""The plan of a study beside a run of it: memory and time of its largest student.

The teachers have random weights. The run is that of a worker of a search, alone on the machine, as
the plan measured it.

python experiments/benchmarks/plan.py [SETTING ...]
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from transformers import AutoConfig, PretrainedConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from distill import resolve_precision
from distill.recipes import RunResult
from distill.train import ResolvedTraining, RunLimits, TrainingSettings
from experiments.benchmarks.search.trial_memory import RESOURCES, assets_of
from search.cluster import ray_cluster
from search.config import BudgetConfig, SearchConfig
from search.plan import StudyPlan
from search.results import RunCosts
from search.workers import Job, Slot, WorkerTask

FULL_TOKENS = 2_000_000


@dataclass(frozen=True)
class Setting:
    """A study, and how many steps of one of its runs are done."""

    teacher: Path
    """Folder with the shape of its teacher."""
    block: int
    steps: int
    given: TrainingSettings
    """As the user sets them."""
    selected: int = 16
    """Sequences of the selection split."""

    def config(self) -> PretrainedConfig:
        config: PretrainedConfig = AutoConfig.from_pretrained(self.teacher)
        return config

    @property
    def training(self) -> ResolvedTraining:
        precision = resolve_precision(self.given.precision, torch.device("cpu"))
        return self.given.resolved(FULL_TOKENS, self.block, precision=precision)

    def study(self, root: Path) -> SearchConfig:
        """Of the teacher below `root`."""
        return SearchConfig(
            str(root / "teacher"),
            "no text",
            budget=BudgetConfig(parameters=0.75),
            block=self.block,
            training=self.given,
            full_tokens=FULL_TOKENS,
            workspace=root / "workspace",
            device="cpu",
        )


def _smollm(precision: str = "auto", micro_batch: int | None = None) -> Setting:
    settings = TrainingSettings(batch=4, precision=precision, micro_batch=micro_batch)
    return Setting(ROOT / "experiments/configs/teachers/smollm2-135m", 512, 8, settings)


SETTINGS = {
    "the demo": Setting(ROOT / "experiments/demo/teacher", 256, 256, TrainingSettings(batch=2)),
    "135M, bf16": _smollm("bf16"),
    "135M, fp32": _smollm("fp32"),
    "135M, fp32, micro_batch 1": _smollm("fp32", micro_batch=1),
}


@dataclass(frozen=True)
class Row:
    """What was planned and measured: parameters, bytes and seconds."""

    parameters: int
    memory: tuple[float, float]
    seconds: tuple[float, float]

    def __str__(self) -> str:
        (planned, took), (expected, lasted) = self.memory, self.seconds
        return (
            f"{self.parameters / 1e6:.1f}M parameters | {planned / 1e9:.2f} | {took / 1e9:.2f} | "
            f"{planned / took:.2f} | {expected:.1f} | {lasted:.1f} | {expected / lasted:.2f}"
        )


def measured(setting: Setting) -> Row:
    """Plan a study, and do a run of its largest student."""
    with tempfile.TemporaryDirectory() as folder:
        root, tokens = Path(folder), setting.steps * setting.training.batch * setting.block
        assets = assets_of(setting, root, "cpu")
        plan = StudyPlan.of(setting.study(root))
        assert plan.outline.training == setting.training and plan.need.largest is not None
        assert plan.speed.training is not None, plan.speed.basis
        shape, size = plan.need.largest
        costs = RunCosts.of(plan.outline.teacher.config, setting.block)
        cost = costs.student(shape, trained=tokens, evaluated=setting.selected * setting.block)
        slot = Slot.remote()  # type: ignore[attr-defined]
        task = WorkerTask(
            job=Job("measured", shape, RunLimits(tokens)),
            assets=assets,
            resources=RESOURCES,
            output=root / "full",
        )
        failed = ray.get(slot.train.remote(task))
        ray.kill(slot)
        assert failed is None, failed
        result = RunResult.read(root / "full")
    assert result is not None
    memory = plan.outline.memory.peak(shape, size, on_gpu=False)
    seconds = plan.speed.starting + cost.flops * plan.speed.training
    return Row(size, (memory, result.peak_bytes), (seconds, result.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help=f"some of: {', '.join(SETTINGS)}; or all")
    chosen = parser.parse_args().settings or list(SETTINGS)
    torch.set_num_threads(1)
    print("setting | student | GB planned | measured | ratio | s planned | measured | ratio")
    with ray_cluster("plan", RESOURCES):
        for name in chosen:
            print(f"{name} | {measured(SETTINGS[name])}", flush=True)


if __name__ == "__main__":
    main()
