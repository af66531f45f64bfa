"""Students whose layers differ against uniform ones: at equal latency, memory and parameters.

    python experiments/benchmarks/search/per_layer.py [--short_tokens 65536] [--full_tokens 262144]

Under each limit (half and 30 % of the demo teacher's measured decode latency, of its memory and of
its parameters) it holds the best uniform student against the best whose layers differ, and against
the controls of Puzzle (arXiv 2411.19146): random blocks, greedy swaps, whole sub-blocks left out
only, and most parameters. The best are those of a few short runs, of candidates that were the best
before training. Each is then measured as it was cut, after a short run and after a full one, with
the same tokens and several seeds. The students whose layers differ are also cut from blocks that
were not distilled, and from those that were distilled separately on the same tokens in all.

With all defaults it takes some four hours on two cores. Everything is kept in --output as soon as
it is known (rows.jsonl has a line for each run); killed and started again, it goes on. The table
goes to --output as per_layer.md and per_layer.json, and with --figure the figure to that file.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from common.files import read_rows, write_file_atomically
from common.log import plain_lines
from experiments.benchmarks import rows
from experiments.benchmarks.demo_setting import add_teacher_and_corpus
from experiments.benchmarks.per_layer.arms import (
    UNIFORM,
    Arm,
    arms_of,
    by_source,
    selection_runs,
    test_runs,
)
from experiments.benchmarks.per_layer.choosing import Choice, Chooser, timed
from experiments.benchmarks.per_layer.figure import figure
from experiments.benchmarks.per_layer.report import Results, error_table, markdown, source_table
from experiments.benchmarks.per_layer.runs import Measured, Run, Setting, measure
from experiments.benchmarks.per_layer.setting import (
    COSTS,
    NESTED,
    SEPARATE,
    Limit,
    limits_of,
    study_of,
)
from experiments.benchmarks.per_layer.workshop import Workshop
from experiments.benchmarks.preparing import prepared
from search.inputs import Inputs
from search.library import Library

LOGGER = logging.getLogger(__name__)


class Benchmark:
    """The comparison, from its options to its report."""

    def __init__(self, options: argparse.Namespace):
        """Prepares corpus, sorted teacher and targets, or finds them."""
        self.options, self.limits = options, limits_of(options)
        common = Limit("parameters", options.shares[0])  # needs no times
        self.inputs = Inputs.read(study_of(options, common))
        self.assets = prepared(self.inputs, options.output)
        self.libraries: dict[str, Library] = {}
        self.choices: dict[Limit, Choice] = {}

    def run(self) -> None:
        """All of it, as far as it is not done."""
        self.choices = self._choices()
        self._measure(selection_runs(self.options, list(self.choices.values())))
        arms = self._arms()
        times = self._times(arms)
        others = by_source(arms)
        for limit in self.limits:
            self._measure(test_runs(self.options, [arm for arm in arms if arm.limit == limit]))
            self._report(arms, others, times=times)
        self._measure(test_runs(self.options, others))
        self._report(arms, others, times=times)

    def _choices(self) -> dict[Limit, Choice]:
        """The candidates of every limit, and the libraries that they are cut from."""
        options, workshop = self.options, Workshop(self.options, self.inputs, self.assets)
        with plain_lines(), workshop.open():
            self.libraries = workshop.libraries
            chooser = Chooser(
                options.output / "choices.json",
                options,
                assets=self.libraries[NESTED].assets,
                scores=workshop.scores(),
                zero_shot=workshop.zero_shot,
            )
            return {limit: chooser.choose(limit) for limit in self.limits}

    def _arms(self) -> list[Arm]:
        measured = self._measured()
        return [
            arm
            for limit, choice in self.choices.items()
            for arm in arms_of(self.options, limit, choice, measured=measured)
        ]

    def _times(self, arms: Sequence[Arm]) -> dict[str, float]:
        """Measured milliseconds of a decoding step of the teacher and of every arm, all in turns
        with each other."""
        path = self.options.output / "latencies.json"
        shapes = list(dict.fromkeys([self.inputs.space.teacher, *(a.architecture for a in arms)]))
        known = json.loads(path.read_text()) if path.exists() else {}
        if set(known) != {str(shape) for shape in shapes}:
            print(f"latency: {len(shapes)} students, in turns", flush=True)
            with plain_lines():
                found = timed(self.options, shapes)
            known = {str(shape): ms for shape, ms in zip(shapes, found, strict=True)}
            write_file_atomically(path, json.dumps(known, indent=1) + "\n")
        return dict(known)

    def _measure(self, runs: Sequence[Run]) -> None:
        setting = Setting({source: library.assets for source, library in self.libraries.items()})
        rows.measure_missing(
            runs,
            partial(measure, setting),
            options=self.options,
            known=self._measured().__contains__,
            line=lambda row: (
                f"{row['architecture']} {row['source']} {row['tokens']:,} tokens seed "
                f"{row['seed']}: {row['split']} KL {row['kl']:.4f}"
            ),
        )

    def _measured(self) -> Measured:
        return Measured(read_rows(rows.file_of(self.options)))

    def _report(
        self, arms: Sequence[Arm], others: Sequence[Arm], *, times: dict[str, float]
    ) -> None:
        """Write the tables of what is measured so far."""
        options, costs = self.options, self.inputs.space.costs
        teacher = costs.of_teacher(["parameters", "memory"])
        teacher["decode_ms"] = times[str(self.inputs.space.teacher)]
        results = Results(options, self._measured(), costs, times)
        uniform = {arm.limit: arm for arm in arms if arm.name == UNIFORM}
        lines, by_blocks = results.lines(arms, uniform), results.lines(others, uniform)
        errors = {name: self.libraries[name].errors for name in (NESTED, SEPARATE)}
        notes = {limit: choice.notes for limit, choice in self.choices.items()}
        text = [
            *markdown(notes, lines, teacher=teacher),
            *source_table(self.limits, by_blocks),
            *error_table(errors),
        ]
        (options.output / "per_layer.md").write_text("\n".join(text))
        values = {
            "setting": {name: str(value) for name, value in vars(options).items()},
            "teacher": teacher,
            "students": [line.to_dict() for line in lines],
            "by_blocks": [line.to_dict() for line in by_blocks],
            "block_errors": {n: [asdict(e) for e in each] for n, each in errors.items()},
        }
        write_file_atomically(
            options.output / "per_layer.json", json.dumps(values, indent=1) + "\n"
        )
        if options.figure is not None and lines:
            options.figure.write_text(figure(self.limits, lines))
        print("\n".join(text), flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_teacher_and_corpus(parser)
    parser.add_argument("--costs", nargs="+", choices=list(COSTS), default=list(COSTS))
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.5, 0.3], help="of the teacher's cost"
    )
    parser.add_argument("--short_tokens", type=int, default=65_536, help="of a short run")
    parser.add_argument("--full_tokens", type=int, default=262_144, help="of a full run")
    parser.add_argument(
        "--library_tokens", type=int, default=262_144, help="of the block-wise distillation"
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each student")
    parser.add_argument(
        "--pool", type=int, default=150, help="uniform students scored before training, a limit"
    )
    parser.add_argument(
        "--candidates", type=int, default=4, help="of each kind with a short run, a limit"
    )
    parser.add_argument("--selection_tokens", type=int, default=8_192)
    parser.add_argument("--test_tokens", type=int, default=16_384)
    parser.add_argument("--batch", type=int, default=64, help="sequences served at once")
    parser.add_argument("--context", type=int, default=256, help="tokens of each")
    parser.add_argument("--dtype", default="float32", help="type that students are served in")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=2, help="runs at once, a thread each")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "per_layer")
    parser.add_argument("--figure", type=Path, help="SVG file to draw the results into")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    Benchmark(options).run()


if __name__ == "__main__":
    main()
