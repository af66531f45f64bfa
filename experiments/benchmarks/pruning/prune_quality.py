"""How good a cut is, by the score that made it: before training and after a short distillation.

    python experiments/benchmarks/pruning/prune_quality.py [--teacher DIR] \
        [--output runs/prune_quality]

Cuts the uniform shrink of each size out of the teacher by every score of width, and depth-cut
students by every score of layers; measures the KL to the teacher on held-out text before and after
a distillation on the same tokens. Seeds vary the calibration sample, the order of the tokens and
the random control. Beside them, where it is installed (`pip install torch-pruning`), torch-pruning
cuts a multi-head sibling of the teacher (its KV heads written out, one per query head, which is the
same function: it does not finish on grouped queries) to the same shape. Rows are appended as they
come; started again, it goes on.
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
from transformers import AutoModelForCausalLM

from common.files import read_rows
from distill.data import Corpus, SplitSizes
from distill.evaluation import Evaluation, evaluate
from distill.targets import Targets
from distill.train import Distillation, TrainingSettings
from experiments.benchmarks import rows
from experiments.benchmarks.preparing import prepared, study_config
from experiments.benchmarks.pruning import peer
from pruning import (
    LAYER_SCORES,
    SCORES,
    Architecture,
    Checkpoint,
    Importance,
    Ordering,
    Scoring,
    Slice,
    architecture_of,
    cut_student,
    layer_importance,
    load_slice,
    measure_importance,
    parameter_count,
)
from pruning.importance import DEFAULT_SSM_SCORE, measure_moments
from pruning.slicing import NO_EDITS, WeightEdits, bias_compensation, head_merge, rms_rescale
from search.config import BudgetConfig, SearchConfig
from search.inputs import Inputs
from search.space import UNIFORM, Budget, CostModel, Space
from search.workers import SearchAssets
from workspace.importance import CalibrationBatches

BEST = "variance-norm rms_rescale"
"""What `pruning` does by default."""
OPTIONS = (
    "rms_rescale",
    "head_merge",
    "bias_compensation",
    "l2-l2 rms_rescale",
    BEST,
)
"""With l2-mean where no score is named."""
RECOMPUTED = ("block-influence", "kl")
"""Layer scores that are also measured again after the width was cut."""


@dataclass(frozen=True)
class Run:
    """One student to cut and measure."""

    group: str
    """"width", "depth", "both" (depth chosen before or after the width was cut) or "peer"."""
    method: str
    share: float
    seed: int


@dataclass(frozen=True)
class Setting:
    """What every process needs."""

    assets: SearchAssets
    teacher: Path
    sibling: Path
    """The multi-head sibling of the teacher."""
    tokens: int
    calibration: int
    tolerance: float


def all_runs(options: argparse.Namespace, grouped: bool) -> Iterator[Run]:
    settings = [(share, seed) for seed in range(options.seeds) for share in options.shares]
    for share, seed in settings:
        for method in (*SCORES, *OPTIONS):
            yield Run("width", method, share, seed)
        for method in LAYER_SCORES:
            yield Run("depth", method, share, seed)
        if peer.INSTALLED and grouped:
            for method in ("l2-mean", "taylor", BEST, *peer.METHODS):
                yield Run("peer", method, share, seed)
    for share, seed in settings:
        for method in RECOMPUTED:
            yield Run("both", method, share, seed)
            yield Run("both", f"{method} after width", share, seed)


class Cutter:
    """Cuts students as a `Run` says."""

    def __init__(self, setting: Setting, run: Run):
        self.setting, self.run = setting, run
        directory = setting.sibling if run.group == "peer" else setting.teacher
        self.teacher = Checkpoint(directory)
        self.whole = architecture_of(self.teacher.config)

    def student(self) -> Any:
        if self.run.method in peer.METHODS:
            return peer.cut(
                self.model(), self.architecture(), self.run.method, self.batches(), self.run.seed
            )
        ordering, architecture = self.ordering(), self.architecture()
        kept = self.kept(ordering, architecture)
        cut = Slice.of(self.teacher.config, architecture, kept_layers=kept, ordering=ordering)
        return load_slice(self.teacher, cut, edits=self.edits(cut))

    def batches(self) -> CalibrationBatches:
        return calibration_batches(self.setting, self.run.seed)

    def model(self) -> Any:
        return model_of(self.teacher)

    def architecture(self) -> Architecture:
        """The uniform shrink; at full width the depth, or with the depth between, by the group."""
        config = self.teacher.config
        size = int(parameter_count(config, self.whole))
        if self.run.group == "depth":
            depths = [replace(self.whole, layers=n) for n in range(1, self.whole.layers + 1)]
            goal = self.run.share * size
            return min(depths, key=lambda a: abs(parameter_count(config, a) - goal))
        limits = BudgetConfig(self.run.share, self.setting.tolerance)
        layers = self.whole.layers
        if self.run.group == "both":
            layers = max(1, round(layers * (1 + self.run.share) / 2))
        space_config = replace(SearchConfig("", "").space, layers=[layers])
        costs = CostModel.of(config, limits)
        space = Space.build(config, space_config, budget=Budget.of(limits, costs), costs=costs)
        shape = space.anchors()[UNIFORM]
        assert shape is not None
        return shape

    def ordering(self) -> Ordering:
        group, method = self.run.group, self.run.method
        named = method.split()[0]
        score = named if group in ("width", "peer") and named in SCORES else "l2-mean"
        layers = method if group in ("depth", "both") and method in LAYER_SCORES else None
        return Ordering.from_importance(
            self.importance(score, layers or "block-influence"), self.whole
        )

    def importance(self, score: str, layers: str) -> Importance:
        scoring = Scoring(score, layers, seed=self.run.seed)
        return kept_importance(self.setting, self.teacher, scoring)

    def kept(self, ordering: Ordering, architecture: Architecture) -> list[int]:
        score = self.run.method.removesuffix(" after width")
        if score == self.run.method:
            return ordering.kept_layers(architecture.layers)
        deep = replace(architecture, layers=self.whole.layers)
        narrow = cut_student(self.teacher, deep, range(deep.layers), ordering=ordering)
        scores = layer_importance(narrow, self.batches(), layer_score=score)
        return ordering.with_layers(*scores).kept_layers(architecture.layers)

    def edits(self, cut: Slice) -> WeightEdits:
        method = self.run.method
        if method == "head_merge":
            return head_merge(self.teacher, cut)
        if method not in OPTIONS:
            return NO_EDITS
        moments = measure_moments(self.model(), self.batches())
        if method.endswith("rms_rescale"):
            return rms_rescale(cut, moments.mean_squares)
        return bias_compensation(self.teacher, cut, moments=moments)


def calibration_batches(setting: Setting, seed: int) -> CalibrationBatches:
    """Calibration blocks: another sample of the training text for every seed."""
    blocks = Corpus(setting.assets.corpus).blocks("train")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(blocks), generator=generator)[: setting.calibration]
    return CalibrationBatches(blocks[chosen.sort().values.numpy()])


def kept_importance(setting: Setting, teacher: Checkpoint, scoring: Scoring) -> Importance:
    """Importance on the calibration blocks of the scoring's seed, kept on disk: all students of a
    seed share it."""
    how = [teacher.directory.name, scoring.score, scoring.layer_score, str(scoring.seed)]
    how += [] if scoring.ssm_score == DEFAULT_SSM_SCORE else [scoring.ssm_score]
    file = setting.assets.corpus.parent / f"scores-{'-'.join(how)}.safetensors"
    if not file.exists():
        batches = calibration_batches(setting, scoring.seed)
        importance = measure_importance(
            model_of(teacher), batches, scoring=scoring, checkpoint=teacher
        )
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        importance.save(aside)
        aside.replace(file)
    return Importance.load(file)


def model_of(teacher: Checkpoint) -> Any:
    """The teacher in memory."""
    return AutoModelForCausalLM.from_pretrained(teacher.directory, dtype=torch.float32)


def measure(setting: Setting, run: Run) -> dict[str, Any]:
    """The row of one run: KL before and after distillation on the test split."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    student = Cutter(setting, run).student()
    return {**asdict(run), **before_and_after(setting, student, seed=run.seed)}


def before_and_after(setting: Setting, student: Any, *, seed: int) -> dict[str, Any]:
    """Figures of a student before and after its distillation, whose order of blocks is seeded."""
    before = _score(setting, student)
    distillation = Distillation(
        student,
        replace(setting.assets.training_data(), shuffle=seed),
        training=setting.assets.training,
        tokens=setting.tokens,
    )
    distillation.advance(distillation.total_steps)
    after = _score(setting, student)
    return {
        "architecture": str(architecture_of(student.config)),
        "parameters": student.num_parameters(),
        "tokens": distillation.tokens,
        "kl_before": before.means()["kl"],
        "kl_after": after.means()["kl"],
        "ce_after": after.means()["ce"],
    }


def _score(setting: Setting, student: Any) -> Evaluation:
    blocks = Corpus(setting.assets.corpus).blocks("test")
    targets = Targets(setting.assets.test_targets)
    return evaluate(student, blocks, targets=targets, precision=setting.assets.training.precision)


def prepare(options: argparse.Namespace) -> Setting:
    """Corpus and targets in the output directory, found again on the next start."""
    config = study_config(
        options,
        options.output,
        teacher=str(options.teacher),
        corpus=options.corpus,
        training=TrainingSettings(batch=options.batch, targets="topk"),
        splits=SplitSizes(selection_tokens=4_096, test_tokens=options.test_tokens),
        device=options.device,
    )
    inputs = Inputs.read(config)
    assets = prepared(inputs, options.output)
    sibling = options.output / "multi-head"
    if not sibling.exists() and peer.INSTALLED:
        peer.write_multi_head_sibling(inputs.teacher.checkpoint, sibling)
    return Setting(
        assets, inputs.teacher.directory, sibling, options.tokens, options.calibration, 0.05
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows.add_options(parser, ROOT / "runs" / "prune_quality")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, 0.5, 0.3])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    setting = prepare(options)
    config = Checkpoint(setting.teacher).config
    file = rows.file_of(options)
    runs = list(all_runs(options, grouped=config.model_type == "llama"))
    done = {Run(row["group"], row["method"], row["share"], row["seed"]) for row in read_rows(file)}
    rows.measure_missing(
        runs,
        partial(measure, setting),
        options=options,
        known=done.__contains__,
        line=lambda row: (
            f"{row['group']} {row['method']} {row['share']:g} seed {row['seed']} "
            f"{row['architecture']}: KL {row['kl_before']:.3f} -> {row['kl_after']:.4f}"
        ),
    )
    from experiments.benchmarks.pruning.prune_report import report

    report(file, options.output)


if __name__ == "__main__":
    main()
