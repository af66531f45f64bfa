"""Runs of a benchmark in processes of their own, each a row of a file that grows as they end."""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from common.files import append_rows
from common.progress import Progress
from experiments.benchmarks.demo_setting import add_teacher_and_corpus

Run = TypeVar("Run")
Row = dict[str, Any]


def file_of(options: argparse.Namespace) -> Path:
    """Where the rows are kept."""
    return Path(options.output / "rows.jsonl")


def measure_missing(
    runs: Sequence[Run],
    measure: Callable[[Run], Row],
    *,
    options: argparse.Namespace,
    known: Callable[[Run], bool],
    line: Callable[[Row], str],
) -> None:
    """Add the row of every run that is not `known` to the file, and print a `line` for each.

    `options` are those of `add_options`.

    The first run that fails stops the others and raises what it raised.
    """
    left = [run for run in runs if not known(run)]
    before = len(runs) - len(left)
    print(f"{len(runs)} runs, {before} of them measured before", flush=True)
    progress = Progress(len(runs), done=before)
    pool = ProcessPoolExecutor(options.processes, get_context("spawn"))
    with pool:
        waiting = [pool.submit(measure, run) for run in left]
        for number, finished in enumerate(as_completed(waiting), before + 1):
            if finished.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            row = finished.result()
            append_rows(file_of(options), [row])
            minutes = progress.left(number) / 60
            print(f"[{number} of {len(runs)}, {minutes:.0f} min left] {line(row)}", flush=True)


def add_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """What benchmarks of many short distillations of the demo's teacher share."""
    add_teacher_and_corpus(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=65_536, help="of every distillation")
    parser.add_argument("--test_tokens", type=int, default=32_768)
    parser.add_argument("--calibration", type=int, default=256, help="sequences")
    parser.add_argument("--batch", type=int, default=2, help="sequences per step")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, a thread each")
    parser.add_argument("--output", type=Path, default=output)
