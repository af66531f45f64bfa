"""How much of its slots' time a search spends in training steps and evaluations.

    python experiments/benchmarks/search/driver.py [--trials 8] [--seconds 30]

Runs a real study on the demo's teacher with early stopping off, so that all trials go to their end,
each for `--seconds` or more. The rest of the time is Ray, process starts, imports, cutting and
checkpoints. The goal is a `training_share` of at least 0.85.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from distill.data import SplitSizes
from distill.train import TrainingSettings
from experiments.benchmarks.demo_setting import LIBRARY_FILES, add_teacher_and_corpus
from search.config import HalvingConfig, SearchConfig
from search.results import TRIALS
from search.run import run_search

TOKENS_PER_SECOND = 9_000
"""What one trial of the demo reaches on one core of the machine that this was written on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="least length of a trial")
    add_teacher_and_corpus(parser)
    options = parser.parse_args()
    tokens = int(options.seconds * 1.2 * TOKENS_PER_SECOND)
    with tempfile.TemporaryDirectory() as scratch:
        outcome = run_search(
            SearchConfig(
                teacher=str(options.teacher),
                corpus=options.corpus,
                workspace=Path(scratch),
                study="driver-benchmark",
                trials=options.trials,
                short_tokens=tokens,
                full_tokens=tokens,
                winners=1,
                evidence="none",
                training=TrainingSettings(batch=4),
                halving=HalvingConfig(reduction=1),
                splits=SplitSizes(selection_tokens=16_384, test_tokens=16_384),
                corpus_files=LIBRARY_FILES,
            )
        )
    assert outcome is not None, "no other driver is there"
    results = outcome.results
    seconds = results.ledger[TRIALS].seconds / options.trials
    if seconds < options.seconds:
        print(f"note: trials were shorter than {options.seconds:g} s; raise --seconds")
    print(f"{'trials':>24} {options.trials}")
    print(f"{'tokens per trial':>24} {tokens:,}")
    print(f"{'seconds per trial':>24} {seconds:.1f}")
    share = results.training_share
    assert share is not None, "trials have just run"
    print(f"{'training share':>24} {share:.3f} (goal: at least 0.85)")
    figures = {
        "benchmark": "driver",
        "trials": options.trials,
        "seconds_per_trial": round(seconds, 2),
        "training_share": round(share, 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
