"""What a distillation step from stored targets costs beside cross-entropy and a live teacher.

    python experiments/benchmarks/kd_step.py [--teacher DIR]

Three steps of the same student, with the same optimiser, precision and batch: from stored targets
(`distill.Distillation` as it is), plain cross-entropy, and forward KL over the whole vocabulary to
a teacher that runs beside it. Ratios are of tokens per second, medians over alternating rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from distill import (  # noqa: E402
    Distillation,
    TargetFormat,
    TrainingData,
    TrainingSettings,
    resolve_precision,
    write_targets,
)
from distill.precision import autocast  # noqa: E402
from experiments.benchmarks.demo_setting import TEACHER
from pruning import Architecture, architecture_of, student_config  # noqa: E402

GOAL_OVER_CE = 0.9
GOAL_OVER_LIVE = 0.85
"""As a share of the ideal."""


class CrossEntropy(Distillation):
    """The same step without a teacher."""

    def loss(self, blocks: Tensor, slots: NDArray[np.int64]) -> Tensor:
        with autocast(self.device, self.precision):
            logits = self.student(input_ids=blocks, use_cache=False).logits
        return functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), blocks[:, 1:].flatten()
        )


class LiveTeacher(Distillation):
    """The same step with the teacher's forward pass in it."""

    teacher: Any

    def loss(self, blocks: Tensor, slots: NDArray[np.int64]) -> Tensor:
        with autocast(self.device, self.precision):
            with torch.no_grad():
                target = self.teacher(input_ids=blocks, use_cache=False).logits
            logits = self.student(input_ids=blocks, use_cache=False).logits
        return functional.kl_div(
            torch.log_softmax(logits.flatten(0, 1).float(), -1),
            torch.log_softmax(target.flatten(0, 1).float(), -1),
            reduction="batchmean",
            log_target=True,
        )


def half_of(teacher: Any) -> Any:
    """A random student of half the teacher's parameters: half the heads, the rest off the FFN."""
    sizes = architecture_of(teacher.config)
    heads = max(1, sizes.heads // sizes.kv_heads // 2) * sizes.kv_heads

    def config(ffn: int) -> Any:
        shape = Architecture(sizes.layers, sizes.hidden, heads, sizes.kv_heads, ffn)
        return student_config(teacher.config, shape, list(range(sizes.layers)))

    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config(sizes.ffn)).num_parameters()
    surplus = size - teacher.num_parameters() / 2
    ffn = sizes.ffn - round(surplus / (3 * sizes.hidden * sizes.layers))
    return AutoModelForCausalLM.from_config(config(max(8, ffn // 8 * 8)), dtype=torch.float32)


def seconds(run: Distillation, steps: int) -> float:
    """Wall time per optimiser step, with the device's queue drained before and after."""
    drain: Callable[[], None] = (
        torch.cuda.synchronize if run.device.type == "cuda" else lambda: None
    )
    drain()
    start = time.perf_counter()
    run.advance(steps)
    drain()
    return (time.perf_counter() - start) / steps


def runs_of(
    teacher: Any, options: argparse.Namespace, precision: str, scratch: Path
) -> dict[str, Distillation]:
    """The three runs, each on a copy of the same student."""
    vocabulary = teacher.config.vocab_size
    generator = np.random.default_rng(0)
    shape = (options.batch * options.steps, options.sequence)
    blocks = generator.integers(0, vocabulary, shape, dtype=np.int32)
    settings = TrainingSettings(batch=options.batch, topk=min(64, vocabulary - 1))
    form = TargetFormat(vocabulary, settings.topk)
    data = TrainingData(blocks, write_targets(teacher, blocks, form, scratch), seed=0)
    student = half_of(teacher)
    weights = student.state_dict()
    tokens = blocks.size * (options.rounds + 1)
    runs: dict[str, Distillation] = {}
    for name, kind in (("cached", Distillation), ("ce", CrossEntropy), ("live", LiveTeacher)):
        copied = AutoModelForCausalLM.from_config(student.config, dtype=torch.float32)
        copied.load_state_dict(weights)
        runs[name] = kind(copied.to(options.device), data, settings, tokens, precision)
    live = runs["live"]
    assert isinstance(live, LiveTeacher)
    live.teacher = teacher
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--teacher", type=Path, default=TEACHER, help="a checkpoint")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps per timing")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    disable_progress_bar()
    torch.manual_seed(0)
    teacher: Any = AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.float32)
    teacher = teacher.to(options.device).eval()
    precision = resolve_precision(options.precision, torch.device(options.device))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runs = runs_of(teacher, options, precision, Path(scratch))
        for turn in range(options.rounds + 1):
            for name, run in runs.items():
                spent = seconds(run, options.steps)
                if turn:  # the first is a warm-up
                    times.setdefault(name, []).append(spent)
    student: Any = runs["cached"].student
    report(times, teacher, student, options, precision)


def ratio(times: dict[str, list[float]], other: str) -> float:
    """Tokens per second from stored targets over those of `other`, round by round."""
    pairs = zip(times[other], times["cached"], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def report(
    times: dict[str, list[float]],
    teacher: Any,
    student: Any,
    options: argparse.Namespace,
    precision: str,
) -> None:
    tokens = options.batch * options.sequence
    speed = {name: tokens / statistics.median(values) for name, values in times.items()}
    whole, cut = teacher.num_parameters(), student.num_parameters()
    ideal = 1 + whole / (3 * cut)
    over_live = ratio(times, "live")
    result = {
        "benchmark": "kd_step",
        "teacher": str(architecture_of(teacher.config)),
        "student": str(architecture_of(student.config)),
        "teacher_parameters": whole,
        "student_parameters": cut,
        "batch": options.batch,
        "sequence": options.sequence,
        "precision": precision,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        **{f"{name}_tokens_per_second": round(value, 1) for name, value in speed.items()},
        "cached_over_ce": round(ratio(times, "ce"), 3),
        "goal_over_ce": GOAL_OVER_CE,
        "cached_over_live": round(over_live, 3),
        "ideal": round(ideal, 3),
        "cached_over_live_of_ideal": round(over_live / ideal, 3),
        "goal_over_live_of_ideal": GOAL_OVER_LIVE,
    }
    print(f"teacher {result['teacher']} ({whole:,}), student {result['student']} ({cut:,})")
    print(
        f"batch {options.batch} x {options.sequence}, {precision}, {result['threads']} threads, "
        f"median of {options.rounds} alternating rounds"
    )
    for name in ("cached", "ce", "live"):
        print(f"  {name:8} {speed[name]:12,.0f} tokens/s")
    print(
        f"  cached over cross-entropy   {result['cached_over_ce']:.3f}   (goal >= {GOAL_OVER_CE})"
    )
    print(
        f"  cached over live teacher    {over_live:.3f}   (ideal {ideal:.3f}; "
        f"{over_live / ideal:.3f} of it, goal >= {GOAL_OVER_LIVE})"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
