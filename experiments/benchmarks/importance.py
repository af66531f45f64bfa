"""What measuring importance costs over a plain forward pass of the same model.

python experiments/benchmarks/importance.py [--teacher DIR]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.benchmarks.demo_setting import TEACHER
from pruning import architecture_of, measure_importance  # noqa: E402

GOAL = 1.15


@torch.no_grad()
def forward(model: Any, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        model.base_model(input_ids=batch, use_cache=False)


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
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model: Any = AutoModelForCausalLM.from_pretrained(options.teacher, dtype=torch.float32)
    model = model.to(options.device).eval()
    shape = (options.batch, options.sequence)
    vocab = model.config.vocab_size
    batches = [torch.randint(vocab, shape).to(options.device) for _ in range(options.batches)]
    plain, measured = [], []
    for run in range(options.runs + 1):
        times = (
            seconds(lambda: forward(model, batches)),
            seconds(lambda: measure_importance(model, batches)),
        )
        if run:  # the first is a warm-up
            plain.append(times[0])
            measured.append(times[1])
    result = {
        "benchmark": "importance",
        "model": str(architecture_of(model.config)),
        "tokens": options.batches * options.batch * options.sequence,
        "runs": options.runs,
        "threads": torch.get_num_threads(),
        "device": options.device,
        "forward_seconds": round(statistics.median(plain), 4),
        "importance_seconds": round(statistics.median(measured), 4),
        "importance_over_forward": round(statistics.median(measured) / statistics.median(plain), 3),
        "goal": GOAL,
    }
    print(f"{result['model']}, {result['tokens']} tokens, median of {options.runs} runs")
    print(f"  plain forward        {result['forward_seconds']:8.3f} s")
    print(f"  measure_importance   {result['importance_seconds']:8.3f} s")
    print(f"  ratio                {result['importance_over_forward']:8.3f}   (goal <= {GOAL})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
