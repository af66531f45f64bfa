"""What a distillation step costs from stored targets, beside cross-entropy and a live teacher.

    python experiments/benchmarks/distill/kd_step.py                 # vocabularies 4k and 128k
    python experiments/benchmarks/distill/kd_step.py --device cuda   # a 1B student of a 3B teacher

Every kind of step trains the same student with the same optimiser, precision and batch. Plain
cross-entropy is what people write: the model's logits, in fp32, and torch's cross_entropy. TRL's
GKDTrainer, with its divergence set to the same forward KL and no generation, stands for a live
teacher elsewhere; it is timed inside its own training loop.

Ratios are of tokens per second, medians over alternating rounds; the kinds share one student and
its optimiser, since time does not depend on the weights. Memory is of a fresh process per kind: the
peak while it steps, less what it held before the first model was made (resident memory; on a GPU,
what torch had allocated at most). It holds weights, moments, gradients, the step's own, and the
teacher where it is live.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import torch
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from distill import DistillError, resolve_precision
from experiments.benchmarks.distill import kd_peer
from experiments.benchmarks.distill.kd_kinds import (
    CE,
    SAMPLED,
    SHOWN,
    WITH_TEACHER,
    Bench,
    Speeds,
    peak_memory,
    time_rounds,
)
from experiments.benchmarks.distill.kd_setting import PRESETS

CHANGED = (
    "batch",
    "micro_batch",
    "sequence",
    "steps",
    "rounds",
    "gradient_checkpointing",
    "compile",
)
"""Options that take the place of a preset's field."""
MEMORY_GOAL = 1.1
"""Of stored draws or entries over plain cross-entropy."""
Result = TypeVar("Result")


def in_fresh_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """`work` in a process that has computed nothing before; only imports are shared."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.models.llama.modeling_llama", "datasets"])
    with ProcessPoolExecutor(1, context, initializer=_quiet) as pool:
        return pool.submit(work, *arguments).result()


def _quiet() -> None:
    warnings.simplefilter("ignore")
    disable_progress_bar()
    set_verbosity_error()


def measure(bench: Bench) -> dict[str, Any]:
    """One table, printed, and as a row for the JSON line."""
    in_fresh_process(bench.write_targets)
    memory: dict[str, int | None] = {}
    for kind in bench.kinds:
        try:
            memory[kind] = in_fresh_process(peak_memory, bench, kind)
        except (DistillError, torch.OutOfMemoryError):
            memory[kind] = None
    fitting = [kind for kind in bench.kinds if memory[kind] is not None]
    speeds = in_fresh_process(time_rounds, bench, fitting)
    row = figures(bench, speeds, memory)
    show(row)
    return row


def figures(bench: Bench, speeds: Speeds, memory: dict[str, int | None]) -> dict[str, Any]:
    preset = bench.preset
    tokens = preset.batch * preset.sequence
    kinds = {}
    for kind, seconds in speeds.seconds.items():
        speed = tokens / statistics.median(seconds)
        flops = speeds.student_flops
        flops += speeds.teacher_flops / 3 if kind in WITH_TEACHER else 0.0
        held, plain = memory[kind], memory.get(CE)
        kinds[kind] = {
            "tokens_per_second": round(speed, 1),
            "draws_over_it": round(ratio(speeds.seconds, kind), 3),
            "memory_mb": None if held is None else round(held / 1e6, 1),
            "memory_over_ce": round(held / plain, 3) if held and plain else None,
            "mfu": round(speed * flops / speeds.peak_tflops / 1e12, 3)
            if speeds.peak_tflops
            else None,
        }
    return {
        "preset": preset.name,
        "vocabulary": preset.vocabulary,
        "teacher": speeds.teacher,
        "student": speeds.student,
        "teacher_parameters": speeds.teacher_parameters,
        "student_parameters": speeds.student_parameters,
        "batch": preset.batch,
        "sequence": preset.sequence,
        "micro_batch": preset.micro_batch,
        "gradient_checkpointing": preset.gradient_checkpointing,
        "compile": preset.compile,
        "precision": bench.precision,
        "device": speeds.device_name,
        "peak_tflops": speeds.peak_tflops,
        "rounds": preset.rounds,
        "steps": preset.steps,
        "kinds": kinds,
        "too_large": [kind for kind, held in memory.items() if held is None],
        "goal_over_ce": preset.goal_over_ce,
        "ideal_over_live": round(1 + speeds.teacher_parameters / speeds.student_parameters / 3, 3),
        "goal_memory_over_ce": MEMORY_GOAL,
        "goal_mfu": preset.goal_mfu,
    }


def ratio(seconds: dict[str, list[float]], other: str) -> float:
    """Tokens per second from stored draws, the default, over those of `other`, by round."""
    pairs = zip(seconds[other], seconds[SAMPLED], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def show(row: dict[str, Any]) -> None:
    print(
        f"\nvocabulary {row['vocabulary']:,}: teacher {row['teacher']} "
        f"({row['teacher_parameters']:,}), student {row['student']} ({row['student_parameters']:,})"
    )
    passes = "" if row["micro_batch"] is None else f", {row['micro_batch']} a forward pass"
    print(
        f"batch {row['batch']} x {row['sequence']}{passes}, {row['precision']}, {row['device']}, "
        f"{'compiled, ' if row['compile'] else ''}"
        f"median of {row['rounds']} alternating rounds of {row['steps']}"
    )
    print(f"{'':34}{'tokens/s':>10}{'draws over it':>16}{'memory MB':>11}{'over CE':>9}{'MFU':>7}")
    for kind, found in row["kinds"].items():
        memory = "" if found["memory_mb"] is None else f"{found['memory_mb']:,.0f}"
        over = "" if found["memory_over_ce"] is None else f"{found['memory_over_ce']:.2f}"
        mfu = "" if found["mfu"] is None else f"{found['mfu']:.3f}"
        print(
            f"  {SHOWN[kind]:32}{found['tokens_per_second']:>10,.0f}"
            f"{found['draws_over_it']:>16.3f}{memory:>11}{over:>9}{mfu:>7}"
        )
    if row["goal_over_ce"]:
        print(
            f"  goals: over plain cross-entropy >= {row['goal_over_ce']}; memory <= "
            f"{MEMORY_GOAL} of it; over GKD >= {row['ideal_over_live']} (1 + T/3S)"
        )
    if row["goal_mfu"] and row["compile"]:
        print(f"  goal: MFU from stored targets >= {row['goal_mfu']}")
    for kind in row["too_large"]:
        print(f"  {SHOWN[kind]} does not fit the memory; lower --batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--preset", nargs="+", choices=PRESETS, help="by default 4k 128k, on a GPU 1b"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, help="sequences per step")
    parser.add_argument("--sequence", type=int, help="tokens per sequence")
    parser.add_argument("--steps", type=int, help="optimiser steps per timing")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--micro_batch", type=int, help="sequences per forward pass")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile layers and loss")
    parser.add_argument("--kinds", nargs="+", choices=SHOWN, default=(), help="by default all")
    parser.add_argument("--peak_tflops", type=float, help="of the device, for the MFU")
    options = parser.parse_args()
    gpu = options.device.startswith("cuda")
    names = options.preset or (["1b"] if gpu else ["4k", "128k"])
    precision = resolve_precision(options.precision, torch.device(options.device))
    if not kd_peer.INSTALLED:
        print(kd_peer.MISSING)
    changed = {name: getattr(options, name) for name in CHANGED if getattr(options, name)}
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            preset = replace(PRESETS[name], **changed)
            bench = Bench(
                preset,
                options.device,
                precision,
                Path(scratch),
                options.peak_tflops,
                tuple(options.kinds),
            )
            rows.append(measure(bench))
    print(json.dumps({"benchmark": "kd_step", "rows": rows}))


if __name__ == "__main__":
    main()
