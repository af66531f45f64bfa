"""What calibration is worth: scores, cuts and students by the number of calibration sequences.

    python experiments/benchmarks/pruning/calibration.py [--teacher DIR] \
        [--output runs/calibration]

Reads disjoint samples of the training text, each of the largest number of sequences. The first 16,
64, ... of a sample give an order of its own for all widths (the default score) and for layers
(block influence, and the KL with each left out). Orders are compared between samples, at equal
numbers and with another sample's largest: by Spearman's rank correlation, and by the part of a half
that both keep. Then the uniform shrink to half the parameters is cut by each order of the widths,
and the depth cut to half by each order of the layers; the KL to the teacher on held-out text is
measured before and after a distillation on the same tokens, whose order is that of the sample.
Layer orders that keep the same layers share their student. Sums and rows are kept as they come;
started again, it goes on.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch

from common.files import read_rows
from distill.data import Corpus, SplitSizes
from distill.train import TrainingSettings
from experiments.benchmarks import rows
from experiments.benchmarks.preparing import prepared, study_config
from experiments.benchmarks.pruning.calibration_report import agreement_table, student_table
from experiments.benchmarks.pruning.calibration_samples import Samples
from experiments.benchmarks.pruning.prune_quality import Cutter as QualityCutter
from experiments.benchmarks.pruning.prune_quality import Run as QualityRun
from experiments.benchmarks.pruning.prune_quality import Setting, before_and_after
from pruning import (
    Architecture,
    Slice,
    load_slice,
)
from pruning.slicing import rms_rescale
from search.inputs import Inputs

SIZES = [16, 64, 128, 256, 512, 1024]
"""Numbers of sequences."""
SHARE = 0.5
"""Of the teacher's parameters, that students have."""
GROUPS = ("width", "depth")


@dataclass(frozen=True)
class Run:
    """One student to cut and measure."""

    group: str
    """"width" or "depth"."""
    sequences: int
    """That the order comes from."""
    sample: int
    """Number of the sample that they are of."""
    layers: tuple[int, ...]
    """Those that are kept."""

    def key(self) -> tuple[Any, ...]:
        """What runs that share a student have in common; with depth cuts, whose norms have the
        factors of the first of these runs."""
        return (*asdict(self).values(),) if self.group == "width" else (self.sample, self.layers)


def shape_of(setting: Setting, group: str) -> Architecture:
    """Half of the teacher: its uniform shrink, or of its layers."""
    return QualityCutter(setting, QualityRun(group, "", SHARE, 0)).architecture()


def all_runs(samples: Samples, sizes: Sequence[int]) -> Iterator[Run]:
    """A run for every order, those of the widths first."""
    shapes = {group: shape_of(samples.setting, group) for group in GROUPS}
    for group, shape in shapes.items():
        for sample in range(samples.count):
            for size in sizes:
                if group == "depth" and size > samples.left_out:
                    continue
                kept = samples.ordering(sample, size).kept_layers(shape.layers)
                yield Run(group, size, sample, tuple(kept))


def measure(samples: Samples, run: Run) -> dict[str, Any]:
    """The row of one run: KL before and after distillation on the test split."""
    torch.set_num_threads(1)
    torch.manual_seed(run.sample)
    ordering = samples.ordering(run.sample, run.sequences)
    cut = Slice.of(
        samples.teacher.config,
        shape_of(samples.setting, run.group),
        kept_layers=list(run.layers),
        ordering=ordering,
    )
    edits = rms_rescale(cut, samples.moments(run.sample, run.sequences).mean_squares)
    student = load_slice(samples.teacher, cut, edits=edits)
    return {**asdict(run), **before_and_after(samples.setting, student, seed=run.sample)}


def tables(samples: Samples, runs: Sequence[Run], measured: Sequence[dict[str, Any]]) -> str:
    """All that is known, as Markdown; a student that several runs share has a row for each."""
    known = {
        Run(row["group"], row["sequences"], row["sample"], tuple(row["layers"])).key(): row
        for row in measured
    }
    by_run = [known[run.key()] | asdict(run) for run in runs]
    block = Corpus(samples.setting.assets.corpus).block
    head = f"{samples.whole}, {samples.count} samples, {block} tokens a sequence"
    groups = [student_table(by_run, group) for group in GROUPS]
    return "\n\n".join([head, agreement_table(samples), *groups])


def prepare(options: argparse.Namespace) -> Setting:
    """Corpus and targets in the output directory, found again on the next start."""
    config = study_config(
        options,
        options.output,
        teacher=str(options.teacher),
        corpus=options.corpus,
        block=options.block,
        calibration=options.seeds * options.calibration[-1],
        training=TrainingSettings(batch=options.batch, targets="topk"),
        splits=SplitSizes(selection_tokens=4_096, test_tokens=options.test_tokens),
    )
    inputs = Inputs.read(config)
    assets = prepared(inputs, options.output, sorted_by=1)  # orders are measured here
    directory = inputs.teacher.directory
    return Setting(assets, directory, directory, options.tokens, 0, 0.05)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asks for; refused with what would be right."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        conflict_handler="resolve",  # several numbers of sequences, in place of one
    )
    rows.add_options(parser, ROOT / "runs" / "calibration")
    parser.add_argument("--seeds", type=int, default=3, help="disjoint samples, two or more")
    parser.add_argument("--calibration", type=int, nargs="+", default=SIZES, help="sequences")
    parser.add_argument("--cut", type=int, nargs="*", help="sequences to cut by; by default all")
    parser.add_argument("--left_out", type=int, default=256, help="sequences for layers, at most")
    parser.add_argument("--block", type=int, help="tokens of a sequence; by default as in a search")
    options = parser.parse_args(arguments)
    sizes = options.calibration = sorted(set(options.calibration))
    if sizes[0] < 1 or any(size % sizes[0] for size in (*sizes, options.left_out)):
        parser.error(
            f"--calibration is {sizes} and --left_out {options.left_out}; all must be multiples of "
            "the smallest of --calibration, 1 or more"
        )
    if options.seeds < 2:
        parser.error(f"--seeds is {options.seeds}; orders are compared between two samples or more")
    if not set(options.cut or ()) <= set(sizes):
        parser.error(f"--cut is {options.cut}; the numbers must be among --calibration {sizes}")
    return options


def main() -> None:
    options = options_of()
    options.output.mkdir(parents=True, exist_ok=True)
    samples = Samples(
        prepare(options),
        options.output / "sums",
        tuple(options.calibration),
        options.seeds,
        options.left_out,
    )
    samples.measure(options.processes)
    sizes = options.calibration if options.cut is None else options.cut
    wanted = list(all_runs(samples, sizes))
    file = rows.file_of(options)
    print(agreement_table(samples), flush=True)
    done = {
        Run(row["group"], row["sequences"], row["sample"], tuple(row["layers"])).key()
        for row in read_rows(file)
    }
    rows.measure_missing(
        list({run.key(): run for run in reversed(wanted)}.values())[::-1],
        partial(measure, samples),
        options=options,
        known=lambda run: run.key() in done,
        line=lambda row: (
            f"{row['group']} by {row['sequences']} sequences of sample {row['sample']}: "
            f"KL {row['kl_before']:.3f} -> {row['kl_after']:.4f}"
        ),
    )
    text = tables(samples, wanted, list(read_rows(file)))
    (options.output / "calibration.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
