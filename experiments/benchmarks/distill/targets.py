"""What each form of stored targets costs, and how wrong loss and gradient are that it gives.

    python experiments/benchmarks/distill/targets.py [--tokens 256] [--repetitions 32]

Held against the live teacher, with no error of their own: forward KL, its gradient by the student's
logits (q - p), and by the hidden states before the output embedding. Bias is what is left on
average over all draws, noise how far one draw is off; both as shares of the live value's size.
Speeds are of the forms alone, on files the system holds in memory, without a teacher's pass.

The small vocabulary is that of the demo's teacher and of a cut of it, on real text. For the larger
ones there is no trained model here: the sorted probabilities of the same positions are stretched
over the larger vocabulary in the logarithm of the rank, and sharpened until their mean entropy is
the demo's again; the student is the teacher with Gaussian noise on its logits, of the same KL.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from distill.targets import EVALUATION_DRAWS, TargetFormat, Targets, write_targets
from experiments.benchmarks.distill.targets_errors import (
    Errors,
    full_errors,
    independent,
    rounded,
    sampled_errors,
    systematic,
    topk_errors,
    topk_loss,
)
from experiments.benchmarks.distill.targets_setting import Setting, demo_setting, stretched

VOCABULARIES = (32_768, 131_072)
TOPK = (16, 64, 256)
DRAWS = (16, 50, 200)
BLOCK = 64
EVALUATION_TOPK = (4_096, 8_192)


class Table(nn.Module):
    """A teacher that costs nothing: the logits of a token are a row of a table."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows, requires_grad=False)

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.rows[input_ids])


def speeds(setting: Setting, form: TargetFormat, folder: Path, rounds: int = 3) -> dict[str, float]:
    """Bytes per token, and tokens per second to write, read and check."""
    count = max(2, 2**25 // setting.vocabulary // BLOCK)
    blocks = np.resize(np.arange(len(setting.teacher)), (count, BLOCK))
    writing, checking, reading = [], [], []
    for turn in range(rounds):
        start = time.perf_counter()
        targets = write_targets(
            Table(setting.teacher), blocks, target_format=form, directory=folder / str(turn)
        )
        writing.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert targets.is_complete(len(blocks))
        checking.append(time.perf_counter() - start)
        targets = Targets(targets.directory)
        targets.batch(np.arange(1), torch.device("cpu"))
        start = time.perf_counter()
        for first in range(0, len(blocks) - 1, 2):
            targets.batch(np.arange(first, first + 2), torch.device("cpu"))
        reading.append((time.perf_counter() - start) / (len(blocks) // 2 * 2) * len(blocks))
    size = sum(np.load(file, mmap_mode="r").nbytes for file in (folder / "0").rglob("*.npy"))
    rates = {"write": writing, "read": reading, "check": checking}
    return {
        "bytes_per_token": size / blocks.size,
        **{name: blocks.size / statistics.median(times) for name, times in rates.items()},
    }


def measure(setting: Setting, repetitions: int) -> Iterator[dict[str, Any]]:
    vocabulary = setting.vocabulary
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        form = TargetFormat.whole(vocabulary)
        yield _row(setting, "full", full_errors(setting), speeds(setting, form, folder / "full"))
        for topk in TOPK:
            form = TargetFormat(vocabulary, topk)
            cost = speeds(setting, form, folder / f"topk{topk}")
            yield _row(setting, f"top {topk} + rest", topk_errors(setting, topk, True), cost)
            yield _row(setting, f"top {topk} alone", topk_errors(setting, topk, False), {})
        for draws in DRAWS:
            form = TargetFormat.sampled(vocabulary, draws)
            cost = speeds(setting, form, folder / f"sampled{draws}")
            errors = sampled_errors(setting, systematic, draws, repetitions)
            yield _row(setting, f"sampled {draws}", errors, cost)
        errors = sampled_errors(setting, independent, 50, repetitions)
        yield _row(setting, "50 independent", errors, {})


def _row(setting: Setting, name: str, errors: Errors, cost: dict[str, float]) -> dict[str, Any]:
    values = {key: round(value, 5) for key, value in vars(errors).items()}
    costs = {key: round(value, 1) for key, value in cost.items()}
    return {"vocabulary": setting.vocabulary, "form": name, **costs, **values}


def evaluation_errors(setting: Setting) -> Iterator[dict[str, Any]]:
    """Of the KL that an evaluation reports: over all positions, and where entropy is highest."""
    probs = setting.teacher.exp()
    entropy = -(probs * setting.teacher).sum(-1)
    undecided = entropy >= entropy.quantile(0.9)
    for topk in EVALUATION_TOPK:
        loss = topk_loss(setting, topk)
        name = f"top {topk} + rest"
        yield _evaluation_row(setting, name, loss=loss, undecided=undecided, entries=topk)
    draws = EVALUATION_DRAWS
    rows, ids, share = systematic(setting, draws, 0)
    terms = share * (rounded(setting.teacher[rows, ids]) - setting.student[rows, ids])
    loss = torch.zeros(len(setting.kl)).index_add_(0, rows, terms)
    entries, name = len(rows) / len(setting.kl), f"sampled {draws}"
    yield _evaluation_row(setting, name, loss=loss, undecided=undecided, entries=entries)


def _evaluation_row(
    setting: Setting, name: str, *, loss: Tensor, undecided: Tensor, entries: float
) -> dict[str, Any]:
    kl = setting.kl

    def bias(chosen: Tensor) -> float:
        return round(float(loss[chosen].mean() / kl[chosen].mean() - 1), 5)

    return {
        "vocabulary": setting.vocabulary,
        "form": name,
        "entries": round(entries, 1),
        "kl_bias": bias(kl >= 0),
        "kl_bias_where_undecided": bias(undecided),
        "kl_error_of_a_position": round(float(((loss - kl) ** 2).mean().sqrt() / kl.mean()), 5),
    }


def show_evaluation(row: dict[str, Any]) -> None:
    share = {key: f"{100 * value:.2f} %" for key, value in row.items() if key.startswith("kl")}
    print(
        f"{row['form']:<15}{row['entries']:>9,.0f} entries, KL off by {share['kl_bias']}, by "
        f"{share['kl_bias_where_undecided']} in the least certain tenth of the positions, by "
        f"{share['kl_error_of_a_position']} of the mean at one",
        flush=True,
    )


def show(row: dict[str, Any]) -> None:
    cost = "".join(f"{row[key]:>11,.0f}" if key in row else " " * 11 for key in COSTS)
    errors = "".join(
        f"  {100 * row[f'{part}_bias']:>7.2f} ±{100 * row[f'{part}_bias_error']:<5.2f}"
        f"{100 * row[f'{part}_noise']:>7.1f}"
        for part in ("loss", "logits", "hidden")
    )
    print(f"{row['form']:<15}{cost}{errors}", flush=True)


COSTS = ("bytes_per_token", "write", "read", "check")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=32, help="draws of each token")
    parser.add_argument("--vocabularies", type=int, nargs="*", default=VOCABULARIES)
    options = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    torch.manual_seed(0)
    demo = demo_setting(options.tokens)
    rows, evaluations = [], []
    for vocabulary in (demo.vocabulary, *options.vocabularies):
        setting = demo if vocabulary == demo.vocabulary else stretched(demo, vocabulary)
        kind = "real text" if setting is demo else "no trained model: stretched from the demo's"
        print(
            f"\nvocabulary {vocabulary:,} ({setting.name}; {kind}), {options.tokens} tokens, "
            f"entropy {setting.entropy:.2f}, KL {float(setting.kl.mean()):.3f} nats per token"
        )
        print(
            f"{'':15}{'bytes':>11}{'write':>11}{'read':>11}{'check':>11}"
            + "".join(f"  {part + ' bias, noise %':>22}" for part in ("loss", "logits", "hidden"))
        )
        for row in measure(setting, options.repetitions):
            show(row)
            rows.append(row)
        if vocabulary > max(EVALUATION_TOPK):
            print("to evaluate on:")
            for row in evaluation_errors(setting):
                show_evaluation(row)
                evaluations.append(row)
    result = {
        "benchmark": "targets",
        "tokens": options.tokens,
        "repetitions": options.repetitions,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "evaluation": evaluations,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
