"""Searches replayed on the table of every architecture: which setting finds a good one soonest.

    python experiments/benchmarks/search/replay.py [--seeds 50] [--workers 2] [--only TEXT]

A replay takes each KL from the table instead of training, and counts the tokens that training would
have taken. Needs the table that `table.py` writes, or the rows that it has written so far. Can be
killed at any moment and started again: finished replays lie in runs/search_replay. Prints a table
with a row per strategy, writes docs/search_regret.png and ends with a line of JSON.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several replays share the cores

import pandas as pd
from transformers import AutoConfig

import search
from common.files import append_rows, read_rows
from common.fingerprint import fingerprint
from experiments.benchmarks.search.replays import replay_report, simulation
from experiments.benchmarks.search.replays.simulation import Step, Table, replayed
from experiments.benchmarks.search.replays.strategies import BASELINES, STRATEGIES, Strategy
from experiments.benchmarks.search.table import TABLE, WORK, finished, setting
from search.space import Budget, CostModel, Space

CACHE = ROOT / "runs" / "search_replay"
PLOT = ROOT / "docs" / "search_regret.png"
CODE = (
    "samplers/extrapolation.py",
    "samplers/factory.py",
    "samplers/gaussian_process.py",
    "samplers/propose.py",
    "samplers/surrogate.py",
    "space/anchors.py",
    "space/space.py",
    "study/early_stopping.py",
    "study/observation.py",
)
"""Files of `search` that decide what a replay does."""

Job = tuple[Strategy, int]
_shared: dict[str, Table] = {}


def table_space() -> Space:
    """The space that the table holds every architecture of."""
    given = setting()
    config = AutoConfig.from_pretrained(given.teacher)
    costs = CostModel.of(config, given.budget)
    return Space.build(config, given.space, budget=Budget.of(given.budget, costs), costs=costs)


def read_table() -> Table:
    """The finished table, or what is there of it."""
    rows = pd.read_parquet(TABLE) if TABLE.exists() else pd.DataFrame(finished(WORK))
    if rows.empty:
        sys.exit(f"no table: run experiments/benchmarks/search/table.py first ({TABLE})")
    return Table.of(table_space(), rows)


def table_fingerprint(table: Table) -> str:
    runs = {str(shape): kl.tolist() for shape, kl in table.kl.items()}
    return fingerprint({"tokens": table.tokens, "runs": runs})


def code_fingerprint() -> str:
    folder = Path(search.__file__).parent
    files = [*(folder / name for name in CODE), Path(simulation.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def known(file: Path) -> dict[tuple[str, int], list[Step]]:
    """The replays of earlier starts; a line that was cut off by a kill is none."""
    found: dict[tuple[str, int], list[Step]] = {}
    for row in read_rows(file):
        found[row["strategy"], row["seed"]] = [Step(*step) for step in row["steps"]]
    return found


def _share(table: Table) -> None:
    _shared["table"] = table


def _replay(job: Job) -> tuple[Job, list[Step]]:
    strategy, seed = job
    return job, replayed(_shared["table"], strategy, seed)


def _results(table: Table, jobs: list[Job], workers: int) -> Iterator[tuple[Job, list[Step]]]:
    if workers == 1 or not jobs:
        _share(table)
        yield from map(_replay, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _share, (table,)) as pool:
        yield from pool.imap_unordered(_replay, jobs)


def replay_missing(
    table: Table, strategies: list[Strategy], seeds: int, workers: int, file: Path
) -> dict[Strategy, list[list[Step]]]:
    """All replays of each strategy, by seed; new ones are added to `file` as they end."""
    found = known(file)
    prints = {strategy: fingerprint(strategy.parts()) for strategy in strategies}
    jobs = [
        (strategy, seed)
        for seed in range(seeds)
        for strategy in strategies
        if seed < strategy.most_seeds and (prints[strategy], seed) not in found
    ]
    results = _results(table, jobs, workers)
    for number, ((strategy, seed), steps) in enumerate(results, 1):
        found[prints[strategy], seed] = steps
        pairs = [[step.spent, step.regret] for step in steps]
        append_rows(file, [{"strategy": prints[strategy], "seed": seed, "steps": pairs}])
        if number % 100 == 0 or number == len(jobs):
            print(f"{number} of {len(jobs)} replays", file=sys.stderr, flush=True)
    return {
        s: [found[prints[s], seed] for seed in range(min(seeds, s.most_seeds))] for s in strategies
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="strategies whose name has this text")
    parser.add_argument("--plot", type=Path, default=PLOT, help="PNG to write")
    options = parser.parse_args()
    table = read_table()
    strategies = [
        strategy
        for strategy in STRATEGIES
        if not options.only
        or strategy in BASELINES
        or any(text in strategy.name for text in options.only)
    ]
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{table_fingerprint(table)}-{code_fingerprint()}.jsonl"
    replays = replay_missing(table, strategies, options.seeds, options.workers, file)
    result: dict[str, Any] = replay_report.report(table, replays, options.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
