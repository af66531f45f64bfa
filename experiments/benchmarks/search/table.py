"""Every architecture of a space, cut and distilled: what searches are replayed on.

    python experiments/benchmarks/search/table.py [--seeds 1] [--workers 2]

Cuts each feasible architecture of the demo's space out of the demo's teacher, distils it for
65,536 tokens and keeps its KL before the first step and after 1/32, 1/16, ... of them. Takes about
an hour per seed on two cores; can be killed at any moment and started again. What is done lies in
runs/search_table; at the end all of it is written to table.parquet beside this file.
"""

import argparse
import multiprocessing
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import numpy as np
import pandas as pd
import torch
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from common.files import append_rows, read_rows
from distill.data import SplitSizes
from distill.train import RunLimits
from experiments.benchmarks.demo_setting import LIBRARY_FILES, TEACHER
from experiments.benchmarks.preparing import prepared
from pruning import AXES, Architecture
from search.config import BudgetConfig, SearchConfig
from search.inputs import Inputs
from search.workers import CandidateRun, Job, SearchAssets

TABLE = Path(__file__).with_name("table.parquet")
WORK = ROOT / "runs" / "search_table"
TOKENS = 65_536
"""Of each run: the demo's short run."""
PARTS = (32, 16, 8, 4, 2, 1)
"""The KL is measured after one part in so many of the tokens."""
TOLERANCE = 0.07
"""Width of the budget's band; with the demo's 0.05 it would hold 244 architectures."""


def setting() -> SearchConfig:
    """The demo's study with a wider band and fewer sequences to score on."""
    return SearchConfig(
        teacher=str(TEACHER),
        corpus=sysconfig.get_path("stdlib"),
        workspace=WORK,
        budget=BudgetConfig(0.5, TOLERANCE),
        short_tokens=TOKENS,
        full_tokens=262_144,
        splits=SplitSizes(selection_tokens=8_192, test_tokens=8_192),
        corpus_files=LIBRARY_FILES,
    )


def key(row: dict[str, Any]) -> tuple[int, ...]:
    return (*(row.get(axis, 0) for axis in AXES), row["seed"])


def finished(directory: Path) -> list[dict[str, Any]]:
    """The rows written so far by all workers; one that was cut off by a kill is none."""
    return [row for path in sorted(directory.glob("rows-*.jsonl")) for row in read_rows(path)]


def run(assets: SearchAssets, shape: Architecture, seed: int, scratch: Path) -> dict[str, Any]:
    """One row of the table: the KL along the way and how long it took, in seconds."""
    started = time.monotonic()
    steps = TOKENS // (assets.training.batch * 256)
    ends = tuple(steps // part for part in PARTS)
    limits = RunLimits(TOKENS, ends, checkpoint=scratch)
    job = Job("table", shape, limits, shuffle=seed)
    candidate = CandidateRun(assets, job)
    curve = [candidate.evaluate().means()["kl"]]
    report = candidate.next_report()
    while not report.done:
        report = candidate.next_report()
    shutil.rmtree(scratch, ignore_errors=True)
    assert candidate.selection is not None
    return {
        **shape.to_dict(),
        "seed": seed,
        "tokens": [0, *(point.tokens for point in report.curve)],
        "kl": [*curve, *(point.kl for point in report.curve)],
        "kl_sequences": candidate.selection.kl.round(5).tolist(),
        "seconds": round(time.monotonic() - started, 2),
    }


def work(worker: int, assets: SearchAssets, jobs: Any) -> None:
    """Take jobs until there are none; one line of rows-<worker>.jsonl each."""
    torch.set_num_threads(1)
    disable_progress_bar()
    set_verbosity_error()
    for shape, seed in iter(jobs.get, None):
        row = run(assets, shape, seed, WORK / f"scratch-{worker}")
        append_rows(WORK / f"rows-{worker}.jsonl", [row])


def missing(shapes: tuple[Architecture, ...], seeds: int) -> Iterator[tuple[Architecture, int]]:
    """What is not done yet: the first seed in an order that favours no shape, then further seeds of
    the best first, since it is their order that a search is judged by."""
    rows = finished(WORK)
    done = {key(row) for row in rows}
    scores = {key(row)[:-1]: row["kl"][-1] for row in rows if row["seed"] == 0}

    def score(shape: Architecture) -> float:
        return float(scores.get(key({**shape.to_dict(), "seed": 0})[:-1], 0.0))

    drawn = [shapes[index] for index in np.random.default_rng(0).permutation(len(shapes))]
    for seed in range(seeds):
        order = drawn
        if seed:
            order = sorted(drawn, key=score)
        for shape in order:
            if key({**shape.to_dict(), "seed": seed}) not in done:
                yield shape, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=1, help="training seeds per architecture")
    parser.add_argument("--most", type=int, help="runs to do at most; by default all")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    options = parser.parse_args()
    inputs = Inputs.read(setting())
    assets = prepared(inputs, WORK)
    wanted = list(missing(inputs.space.feasible, options.seeds))[: options.most]
    print(f"{len(inputs.space.feasible)} architectures, {len(wanted)} runs to do", flush=True)
    context = multiprocessing.get_context("spawn")
    jobs: Any = context.Queue()
    for job in [*wanted, *[None] * options.workers]:
        jobs.put(job)
    workers = [
        context.Process(target=work, args=(n, assets, jobs), daemon=True)
        for n in range(options.workers)
    ]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    before = len(finished(WORK))
    while any(worker.is_alive() for worker in workers):
        time.sleep(10)
        done = len(finished(WORK)) - before
        left = (time.monotonic() - started) / max(1, done) * (len(wanted) - done)
        print(f"{done} of {len(wanted)} runs, about {left / 60:.0f} min left", flush=True)
    if any(worker.exitcode for worker in workers):
        sys.exit("a worker failed; its reason is above")
    write_table(inputs, finished(WORK))


def write_table(inputs: Inputs, rows: list[dict[str, Any]]) -> None:
    """One row per architecture and seed, with the parameters of each."""
    table = pd.DataFrame(rows).drop_duplicates([*AXES[:5], "seed"])
    shapes = [Architecture.from_dict(row) for row in table[list(AXES[:5])].to_dict("records")]
    table["parameters"] = [inputs.space.parameters_of[shape] for shape in shapes]
    table = table.sort_values([*AXES[:5], "seed"], ignore_index=True)
    table.to_parquet(TABLE, compression="zstd")
    print(f"{TABLE}: {len(table)} rows, {TABLE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
