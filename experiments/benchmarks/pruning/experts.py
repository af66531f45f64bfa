"""Which experts a cut mixture should keep, and whether dropped ones are better merged.

    python experiments/demo/train_other_teachers.py gpt_oss   # the teacher, minutes on a CPU
    python experiments/benchmarks/pruning/experts.py [--teacher DIR] [--output runs/experts]

Cuts students with fewer experts, and nothing else, out of a small trained mixture: by every score
of experts, at random, and each of them with the dropped experts left out or merged into kept ones.
Measures the KL to the teacher on held-out text before and after a distillation on the same tokens.
Seeds vary the calibration sample, the order of the tokens and the random control. Rows are appended
as they come; started again, it goes on.
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

import pandas as pd
import torch

from common.files import read_rows
from distill.data import Corpus
from experiments.benchmarks import rows
from experiments.benchmarks.pruning.prune_quality import (
    Setting,
    before_and_after,
    model_of,
    prepare,
)
from pruning import (
    Checkpoint,
    Ordering,
    Scoring,
    Slice,
    architecture_of,
    load_slice,
    measure_importance,
)
from pruning.families import expert_groups
from pruning.importance import DEFAULT_EXPERT_SCORE, EXPERT_SCORES, measure_routing
from pruning.slicing import NO_EDITS, expert_merge
from workspace.importance import CalibrationBatches

RANDOM = "random"


@dataclass(frozen=True)
class Run:
    """One student to cut and measure."""

    score: str
    merge: bool
    experts: int
    seed: int


def all_runs(options: argparse.Namespace) -> Iterator[Run]:
    for seed in range(options.seeds):
        for experts in options.experts:
            for score in (*EXPERT_SCORES, RANDOM):
                for merge in (False, True):
                    yield Run(score, merge, experts, seed)


def student_of(setting: Setting, run: Run) -> Any:
    """The student, as a model."""
    teacher = Checkpoint(setting.teacher)
    whole = architecture_of(teacher.config)
    model = model_of(teacher)
    blocks = Corpus(setting.assets.corpus).blocks("train")
    generator = torch.Generator().manual_seed(run.seed)
    chosen = torch.randperm(len(blocks), generator=generator)[: setting.calibration]
    batches = CalibrationBatches(blocks[chosen.sort().values.numpy()])
    named = DEFAULT_EXPERT_SCORE if run.score == RANDOM else run.score
    scoring = Scoring(layer_score="block-influence", expert_score=named)
    importance = measure_importance(model, batches, scoring=scoring, checkpoint=teacher)
    if run.score == RANDOM:
        scores = torch.rand(importance.experts.shape, generator=generator)
        importance = replace(importance, experts=scores)
    groups = expert_groups(teacher.config)
    ordering = Ordering.from_importance(importance, whole, expert_groups=groups)
    smaller = replace(whole, experts=run.experts)
    cut = Slice.of(teacher.config, smaller, kept_layers=range(whole.layers), ordering=ordering)
    edits = NO_EDITS
    if run.merge:
        edits = expert_merge(teacher, cut, routing=measure_routing(model, batches))
    return load_slice(teacher, cut, edits=edits)


def measure(setting: Setting, run: Run) -> dict[str, Any]:
    """The row of one run: KL before and after distillation on the test split."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    student = student_of(setting, run)
    return {**asdict(run), **before_and_after(setting, student, seed=run.seed)}


def report(file: Path) -> str:
    """A row per score, with and without merging: KL before, and after with the standard deviation
    over seeds."""
    table = pd.read_json(file, lines=True)
    sizes = sorted(table.experts.unique(), reverse=True)
    lines = [
        "| score | dropped experts | " + " | ".join(f"{n} experts" for n in sizes) + " |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for (score, merge), group in table.groupby(["score", "merge"]):
        cells = []
        for size in sizes:
            found = group[group.experts == size]
            after = f"{found.kl_after.mean():.4f} ± {found.kl_after.std():.4f}"
            cells.append(f"{found.kl_before.mean():.3f} → {after}")
        lines.append(
            f"| {score} | {'merged' if merge else 'left out'} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows.add_options(parser, ROOT / "runs" / "experts")
    parser.set_defaults(teacher=ROOT / "runs" / "teachers" / "gpt_oss")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--experts", type=int, nargs="+", default=[6, 4], help="that are kept")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    setting = prepare(options)
    file = rows.file_of(options)
    names = ("score", "merge", "experts", "seed")
    done = {Run(**{name: row[name] for name in names}) for row in read_rows(file)}
    rows.measure_missing(
        list(all_runs(options)),
        partial(measure, setting),
        options=options,
        known=done.__contains__,
        line=lambda row: (
            f"{row['score']} {'merged' if row['merge'] else 'left out'} seed {row['seed']} "
            f"{row['architecture']}: KL {row['kl_before']:.3f} -> {row['kl_after']:.4f}"
        ),
    )
    text = report(file)
    (options.output / "experts.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
