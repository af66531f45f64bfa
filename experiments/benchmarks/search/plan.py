"""The plan of a study beside a run of it: memory and time of its largest student.

The teachers have random weights. The run is that of a worker of a search, alone on the machine, as
the plan measured it.

python experiments/benchmarks/search/plan.py [SETTING ...]
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from transformers import AutoConfig

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from distill import resolve_precision
from distill.recipes import RunResult
from distill.train import RunLimits, TrainingSettings
from experiments.benchmarks.search.trial_memory import RESOURCES, SELECTED, assets_of
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
    training: TrainingSettings


def _smollm(**training: object) -> Setting:
    settings = TrainingSettings(batch=4, **training)  # type: ignore[arg-type]
    return Setting(ROOT / "experiments/configs/teachers/smollm2-135m", 512, 8, settings)


SETTINGS = {
    "the demo": Setting(ROOT / "experiments/demo/teacher", 256, 256, TrainingSettings(batch=2)),
    "135M": _smollm(),
    "135M, fp32": _smollm(precision="fp32"),
    "135M, fp32, micro_batch 1": _smollm(precision="fp32", micro_batch=1),
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
        root = Path(folder)
        precision = resolve_precision(setting.training.precision, torch.device("cpu"))
        block = setting.block
        training = setting.training.resolved(FULL_TOKENS, block, precision=precision)
        config = AutoConfig.from_pretrained(setting.teacher)
        assets = assets_of(config, training, block, steps=setting.steps, root=root)
        plan = StudyPlan.of(
            SearchConfig(
                str(root / "teacher"),
                "no text",
                budget=BudgetConfig(parameters=0.75),
                block=block,
                training=setting.training,
                full_tokens=FULL_TOKENS,
                workspace=root / "workspace",
                device="cpu",
            )
        )
        assert plan.outline.training == training and plan.need.largest is not None
        shape, size = plan.need.largest
        speed, tokens = plan.speed, setting.steps * training.batch * block
        assert speed.training is not None, speed.basis
        costs = RunCosts.of(plan.outline.teacher.config, block)
        cost = costs.student(shape, trained=tokens, evaluated=SELECTED * block)
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
    seconds = cost.flops * speed.training
    return Row(size, (memory, result.peak_bytes), (seconds, result.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help=f"some of: {', '.join(SETTINGS)}; or all")
    chosen = parser.parse_args().settings or list(SETTINGS)
    torch.set_num_threads(1)
    print("setting | student | GB planned | measured | ratio | s planned | measured | ratio")
    with ray_cluster("plan", RESOURCES, dashboard=False):
        for name in chosen:
            print(f"{name} | {measured(SETTINGS[name])}", flush=True)


if __name__ == "__main__":
    main()
