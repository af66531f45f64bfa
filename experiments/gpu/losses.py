"""The loss of a step alone, from last hidden states to gradients: ours beside Liger Kernel's.

    python experiments/gpu/losses.py          # needs a GPU and liger-kernel

Cross-entropy against LigerFusedLinearCrossEntropyLoss, forward KL to a live teacher against
LigerFusedLinearJSDLoss (beta 0), both computed piece by piece, too (arXiv 2410.10989). Liger has
nothing for stored draws; ours are timed beside the others. Milliseconds of a forward and a backward
pass, medians of rounds that alternate, and the most memory above what was there before.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor, nn

from distill.loss import DistillationLoss, Head, Supervision, Target, TeacherHead, projected_loss
from distill.targets import DRAWS, TargetBatch

CE, KL, SAMPLED = "cross-entropy", "forward KL, live", "forward KL, draws"
OURS, COMPILED = "ours", "ours, compiled"
WARM_UPS = 2


@dataclass(frozen=True)
class Shapes:
    """Sizes of a step's end; by default those of a 1B student of a 3B teacher."""

    tokens: int = 8192
    vocabulary: int = 128_256
    student: int = 2048
    """Hidden size."""
    teacher: int = 3072
    """Hidden size."""


class Step:
    """Hidden states, projections and answers of one forward pass."""

    def __init__(self, shapes: Shapes, device: torch.device):
        torch.manual_seed(0)
        self.shapes = shapes
        with device:
            self.hidden = torch.randn(shapes.tokens, shapes.student, requires_grad=True)
            self.projection = nn.Linear(shapes.student, shapes.vocabulary, bias=False)
            self.teacher_hidden = torch.randn(shapes.tokens, shapes.teacher).bfloat16()
            self.teacher = nn.Linear(shapes.teacher, shapes.vocabulary, bias=False).bfloat16()
            self.labels = torch.randint(0, shapes.vocabulary, (shapes.tokens,))
            self.weights = torch.full((shapes.tokens, 2), 1 / shapes.tokens)
            entries = torch.randint(0, shapes.vocabulary, (shapes.tokens, DRAWS))
            self.draws = TargetBatch(
                entries,
                torch.full(entries.shape, -5.0),
                torch.zeros(shapes.tokens),
                torch.full(entries.shape, 1 / DRAWS),
            )

    def ours(self, kind: str, *, compiled: bool) -> Callable[[], Tensor]:
        """Our loss of a kind."""
        target: Target = None
        if kind == SAMPLED:
            target = self.draws
        elif kind == KL:
            head = Head(self.teacher)
            device = self.hidden.device
            target = TeacherHead(head, self.teacher_hidden, self.shapes.vocabulary, 1.0, device)
        loss = DistillationLoss("ce" if kind == CE else "forward-kl")
        supervision = Supervision(loss, target, self.labels, self.weights)
        head = Head(self.projection)
        return lambda: projected_loss(head, self.hidden, supervision, compiled=compiled)

    def ligers(self) -> dict[tuple[str, str], Callable[[], Tensor]]:
        """Liger Kernel's losses, by kind and name."""
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        cross_entropy = LigerFusedLinearCrossEntropyLoss()
        weight = self.projection.weight
        found = {(CE, "liger"): lambda: cross_entropy(weight, self.hidden, self.labels)}
        for size in (1024, self.shapes.tokens):
            divergence = LigerFusedLinearJSDLoss(
                weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, chunk_size=size
            )

            def live(divergence: Any = divergence) -> Tensor:
                loss: Any = divergence(
                    self.hidden, weight, self.teacher_hidden, self.teacher.weight, self.labels
                )
                value: Tensor = loss[0] if isinstance(loss, tuple) else loss
                return value

            found[KL, f"liger, {size:,} tokens at once"] = live
        return found

    def timed(self, loss: Callable[[], Tensor]) -> tuple[float, float]:
        """Milliseconds of a forward and backward pass, and GB on top of what there was."""
        self.hidden.grad = self.projection.weight.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, start = torch.cuda.memory_allocated(), time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            value = loss()
        value.backward()
        torch.cuda.synchronize()
        spent = time.perf_counter() - start
        return 1e3 * spent, (torch.cuda.max_memory_allocated() - before) / 1e9


def measure(shapes: Shapes, rounds: int) -> list[dict[str, Any]]:
    """Rows of kind, name, milliseconds and GB."""
    step = Step(shapes, torch.device("cuda"))
    losses = {
        (kind, name): step.ours(kind, compiled=name == COMPILED)
        for kind in (CE, KL, SAMPLED)
        for name in (OURS, COMPILED)
    }
    if find_spec("liger_kernel") is None:
        print("Liger Kernel is left out, since it is not installed: pip install liger-kernel")
    else:
        losses |= step.ligers()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in losses}
    for turn in range(WARM_UPS + rounds):
        for key, loss in losses.items():
            figures = step.timed(loss)
            if turn >= WARM_UPS:
                found[key].append(figures)
    return [
        {
            "loss": kind,
            "by": name,
            "ms": round(statistics.median(ms for ms, _ in timings), 2),
            "gb": round(max(gb for _, gb in timings), 2),
        }
        for (kind, name), timings in sorted(found.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=Shapes.tokens)
    parser.add_argument("--vocabulary", type=int, default=Shapes.vocabulary)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("these losses are compared on a GPU, and torch finds none here")
    rows = measure(Shapes(options.tokens, options.vocabulary), options.rounds)
    print(f"{options.tokens:,} tokens, vocabulary {options.vocabulary:,}, bf16")
    for row in rows:
        print(f"{row['loss']:>20}  {row['by']:28}{row['ms']:9.1f} ms{row['gb']:8.2f} GB")
    print(json.dumps({"benchmark": "losses", "rows": rows}))


if __name__ == "__main__":
    main()
