"""What measuring importance in one pass costs over a plain forward pass of the same model.

The width scores with block influence; leaving layers out costs a pass per layer besides.

python experiments/benchmarks/pruning/importance.py [--teacher DIR]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from experiments.benchmarks.demo_setting import TEACHER
from pruning import DEFAULT_SCORE, Scoring, architecture_of, measure_importance  # noqa: E402

GOAL = 1.15


@torch.no_grad()
def forward(model: Any, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        model.base_model(input_ids=batch, use_cache=False)


def score(model: Any, batches: list[torch.Tensor], name: str) -> None:
    measure_importance(model, batches, scoring=Scoring(name, "block-influence"))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, with the device's queue drained before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, default=TEACHER, help="a checkpoint")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--scores", nargs="+", default=["l2-mean", DEFAULT_SCORE])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.float32)
    model = model.to(options.device).eval()
    shape = (options.batch, options.sequence)
    vocab = model.config.vocab_size
    batches = [torch.randint(vocab, shape).to(options.device) for _ in range(options.batches)]
    plain: list[float] = []
    measured: dict[str, list[float]] = {name: [] for name in options.scores}
    for run in range(options.runs + 1):
        forward_seconds = seconds(lambda: forward(model, batches))
        times = {name: seconds(partial(score, model, batches, name)) for name in options.scores}
        if run:  # the first is a warm-up
            plain.append(forward_seconds)
            for name, time_taken in times.items():
                measured[name].append(time_taken)
    once = statistics.median(plain)
    ratios = {name: statistics.median(times) / once for name, times in measured.items()}
    print(f"{architecture_of(model.config)}, median of {options.runs} runs")
    print(f"  plain forward {once:8.3f} s")
    for name, ratio in ratios.items():
        print(f"  {name:20} ratio {ratio:.3f} (goal <= {GOAL})")
    result = {
        "benchmark": "importance",
        "model": str(architecture_of(model.config)),
        "tokens": options.batches * options.batch * options.sequence,
        "runs": options.runs,
        "threads": torch.get_num_threads(),
        "device": options.device,
        "forward_seconds": round(once, 4),
        "importance_over_forward": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "goal": GOAL,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
