"""Which parts of Mamba-2 layers to cut, and by which score: before and after a short distillation.

    python experiments/benchmarks/pruning/mamba.py --teacher runs/teachers/nemotron_h \
        [--output runs/mamba]

Cuts a hybrid teacher (`experiments/demo/train_other_teachers.py`) three times:

* heads (inside their groups), channels of heads, or state alone, by every score of `SCORED`;
* every axis to the same number of parameters, with the default scores: what an axis saves less than
  another, the FFN gives up besides;
* heads, and channels of heads, with and without the factor of the gated norm (`rms_rescale`).

Of a teacher without recurrent layers (OLMo 2, whose norms of queries and keys are over all heads)
only query heads are cut, with and without the factor. Seeds vary the calibration sample, the order
of the tokens and the random control. Rows are appended as they come; started again, it goes on.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch

from common.files import read_rows
from experiments.benchmarks import rows
from experiments.benchmarks.pruning.mamba_report import report
from experiments.benchmarks.pruning.prune_quality import (
    Setting,
    before_and_after,
    calibration_batches,
    kept_importance,
    model_of,
    prepare,
)
from pruning import (
    Architecture,
    Checkpoint,
    Importance,
    Ordering,
    Scoring,
    Slice,
    architecture_of,
    load_slice,
    parameter_count,
)
from pruning.importance import DEFAULT_SSM_SCORE, LayerMix, measure_moments
from pruning.slicing import NO_EDITS, rms_rescale

MINITRON, SHARED = "l2-mean", " in one order for all heads"
"""Minitron-SSM's score of recurrent parts (arXiv 2504.11409), and the suffix of one of channels
that has its order."""
SCORED = (
    MINITRON,
    "activation-norm",
    "variance-norm",
    "taylor",
    "magnitude",
    "random",
)
SCORED_AXES = {"ssm_heads": 2, "ssm_head_dim": 2, "ssm_state": 4}
"""Axis -> by how much it is divided where scores are compared."""
MAMBA_AXES = {
    "ssm_heads": ("ssm_heads",),
    "ssm_head_dim": ("ssm_head_dim",),
    "ssm_groups": ("ssm_groups", "ssm_heads"),
    "ssm_state": ("ssm_state",),
}
"""Axis -> the sizes that are halved; whole groups go with their heads."""
OTHER_AXES = ("hidden", "ffn", "layers")
FACTOR, NO_FACTOR = "factor", "no factor"


@dataclass(frozen=True)
class Run:
    """One student to cut and measure."""

    group: str
    """"axes" at equal parameters, or the axis that is cut by different scores, or "norm" and an
    axis, with and without the factor."""
    method: str
    """An axis, a score, or whether there is a factor."""
    seed: int


def all_runs(options: argparse.Namespace, whole: Architecture) -> Iterator[Run]:
    """Axes first, and the scores by seed, so that a first comparison is there early."""
    seeds = range(options.seeds)
    if not whole.ssm_heads:
        yield from (Run("norm heads", method, s) for s in seeds for method in (FACTOR, NO_FACTOR))
        return
    for seed in seeds:
        for axis in (*MAMBA_AXES, *OTHER_AXES):
            yield Run("axes", axis, seed)
        for axis in ("ssm_heads", "ssm_head_dim"):
            yield Run(f"norm {axis}", NO_FACTOR, seed)
    for seed in seeds:
        for axis in SCORED_AXES:
            for score in SCORED:
                yield Run(axis, score, seed)
        yield Run("ssm_head_dim", MINITRON + SHARED, seed)


class Cutter:
    """Cuts students as a `Run` says."""

    def __init__(self, setting: Setting, run: Run):
        self.setting, self.run = setting, run
        self.teacher = Checkpoint(setting.teacher)
        self.config = self.teacher.config
        self.whole = architecture_of(self.config)

    def student(self) -> Any:
        architecture = self.architecture()
        ordering = Ordering.from_importance(
            self.importance(), self.whole, mix=LayerMix.of(self.config)
        )
        cut = Slice.of(
            self.config,
            architecture,
            kept_layers=ordering.kept_layers(architecture.layers),
            ordering=ordering,
        )
        edits = NO_EDITS
        if self.run.method != NO_FACTOR:
            batches = calibration_batches(self.setting, self.run.seed)
            moments = measure_moments(model_of(self.teacher), batches)
            edits = rms_rescale(cut, moments.mean_squares)
        return load_slice(self.teacher, cut, edits=edits)

    def importance(self) -> Importance:
        group, method = self.run.group, self.run.method
        named = method.removesuffix(SHARED) if group in SCORED_AXES else DEFAULT_SSM_SCORE
        layers = "kl" if (group, method) == ("axes", "layers") else "block-influence"
        scoring = Scoring(layer_score=layers, seed=self.run.seed, ssm_score=named)
        importance = kept_importance(self.setting, self.teacher, scoring)
        if method.endswith(SHARED):
            channels = importance.ssm_head_dim
            alike = channels.mean(1, keepdim=True).expand_as(channels)
            importance = replace(importance, ssm_head_dim=alike)
        return importance

    def architecture(self) -> Architecture:
        group, method = self.run.group, self.run.method
        if group == "axes":
            return self.equal(method)
        axis = group.removeprefix("norm ")
        if axis == "heads":
            return replace(
                self.whole, heads=self.whole.heads // 2, kv_heads=self.whole.kv_heads // 2
            )
        parts = 2 if group.startswith("norm") else SCORED_AXES[axis]
        smaller: Any = {axis: getattr(self.whole, axis) // parts}
        return replace(self.whole, **smaller)

    def equal(self, axis: str) -> Architecture:
        """The architecture cut on an axis that has as many parameters as all others of "axes"."""
        goal = min(self.size(self.halved(axis)) for axis in MAMBA_AXES)
        start = self.whole
        if axis in MAMBA_AXES:
            start = self.halved(axis)
        elif axis != "ffn":
            sizes: Any = [{axis: size} for size in range(1, getattr(start, axis) + 1)]
            shapes = [replace(start, **size) for size in sizes]
            start = next(shape for shape in shapes if self.size(shape) >= goal)
        widths = [replace(start, ffn=ffn) for ffn in range(1, start.ffn + 1)]
        return max((shape for shape in widths if self.size(shape) <= goal), key=self.size)

    def halved(self, axis: str) -> Architecture:
        sizes: Any = {name: getattr(self.whole, name) // 2 for name in MAMBA_AXES[axis]}
        return replace(self.whole, **sizes)

    def size(self, architecture: Architecture) -> int:
        return int(parameter_count(self.config, architecture))


def measure(setting: Setting, run: Run) -> dict[str, Any]:
    """The row of one run: KL before and after distillation on the test split."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    student = Cutter(setting, run).student()
    return {**asdict(run), **before_and_after(setting, student, seed=run.seed)}


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['group']}: {row['method']}, seed {row['seed']}, {row['architecture']}, "
        f"{row['parameters']:,} parameters: KL {row['kl_before']:.3f} -> {row['kl_after']:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows.add_options(parser, ROOT / "runs" / "mamba")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    setting = prepare(options)
    whole = architecture_of(Checkpoint(setting.teacher).config)
    file = rows.file_of(options)
    done = {Run(row["group"], row["method"], row["seed"]) for row in read_rows(file)}
    rows.measure_missing(
        list(all_runs(options, whole)),
        partial(measure, setting),
        options=options,
        known=done.__contains__,
        line=line,
    )
    report(file, options.output)


if __name__ == "__main__":
    main()
