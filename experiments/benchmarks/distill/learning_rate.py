"""The best peak learning rate by student size: what `distill.train.settings.default_rate` rests on.

    python experiments/benchmarks/distill/learning_rate.py [--shares 0.5 0.2] [--tokens 131072]

Cuts the uniform shrink of each size out of the demo's teacher, distils it at each rate with the
demo's settings, and prints the selection KL.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from common.log import plain_lines
from distill.data import SplitSizes
from distill.train import RunLimits, TrainingSettings, default_rate
from experiments.benchmarks.demo_setting import add_teacher_and_corpus
from experiments.benchmarks.preparing import prepared, study_config, uniform_shrink
from pruning import parameter_count
from search.config import BudgetConfig
from search.inputs import Inputs
from search.workers import CandidateRun, Job


@plain_lines()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_teacher_and_corpus(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for share in options.shares:
            config = study_config(
                options,
                Path(scratch),
                teacher=str(options.teacher),
                corpus=options.corpus,
                budget=BudgetConfig(share),
                training=TrainingSettings(batch=options.batch),
                splits=SplitSizes(selection_tokens=16_384, test_tokens=4_096),
                device="auto",
            )
            inputs = Inputs.read(config)
            assets = prepared(inputs, Path(scratch))
            shape = uniform_shrink(inputs)
            size = parameter_count(inputs.teacher.config, shape)
            for rate in options.rates:
                settings = replace(assets.training, learning_rate=rate)
                name = f"{share:g}-{rate:g}"
                job = Job(name, shape, RunLimits(options.tokens))
                report = CandidateRun(replace(assets, training=settings), job).next_report()
                rows.append({"parameters": size, "rate": rate, "kl": report.curve[-1].kl})
    print(f"{'parameters':>12} {'rate':>8} {'KL':>8}")
    best: dict[int, dict[str, float]] = {}
    for row in rows:
        size = row["parameters"]
        print(f"{size:>12,} {row['rate']:>8.4g} {row['kl']:>8.4f}")
        if size not in best or row["kl"] < best[size]["kl"]:
            best[size] = row
    for size, row in best.items():
        print(f"{size:,}: best {row['rate']:g}, the default is {default_rate(size):.2g}")
    print(json.dumps({"benchmark": "learning_rate", "tokens": options.tokens, "runs": rows}))


if __name__ == "__main__":
    main()
