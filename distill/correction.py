"""Fit the teacher to the corpus before it teaches, where that is not what it was trained on.

Minitron in practice (arXiv 2408.11796): 120 warm-up steps and a fifth of the peak learning rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.corpus import Corpus
from distill.errors import DistillError
from distill.evaluation import text_loss
from distill.losses import CROSS_ENTROPY
from distill.run import kept_and_said
from distill.settings import ADAMW, COSINE, TrainingSettings, default_rate
from distill.training import Distillation, TrainingData

SHARE_OF_RATE = 0.2
WARMUP_STEPS = 120


@dataclass(frozen=True)
class CorrectionSettings:
    """Fine-tuning of the teacher on the corpus, before anything else."""

    tokens: int = 0
    """Training tokens; 0 leaves the teacher as it is."""
    learning_rate: float | None = None
    """Peak learning rate; by default a fifth of the one that follows from the teacher's size."""

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise DistillError(f"--correction.tokens is {self.tokens}; it must not be negative")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise DistillError(
                f"--correction.learning_rate is {self.learning_rate}; it must be above zero"
            )


@dataclass(frozen=True)
class Correction:
    """The teacher's cross-entropy on held-out text, nats per token [sequences]."""

    tokens: int
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def correct_teacher(
    model: Any,
    corpus: Corpus,
    settings: CorrectionSettings,
    training: TrainingSettings,
    seed: int,
    precision: str,
    dtype: torch.dtype,
    checkpoint: Path,
    checkpoint_seconds: float,
    say: Callable[[str], None],
) -> Correction:
    """Train `model` in place on the text of the training split, from `checkpoint` if it is there.

    Batch, memory and precision are those of `training`. At the end the weights are rounded to
    `dtype`, in which they will be kept, before they are measured. Raises what `Distillation`
    raises.
    """
    size = sum(p.numel() for p in model.parameters())
    assert training.batch is not None
    steps = max(1, settings.tokens // (training.batch * corpus.block))
    plain = replace(
        training,
        loss=CROSS_ENTROPY,
        learning_rate=settings.learning_rate or SHARE_OF_RATE * default_rate(size),
        warmup_steps=min(WARMUP_STEPS, steps // 2),
        schedule=COSINE,
        optimizer=ADAMW,
        average=None,
        lm_weight=0.0,
    )
    blocks, weights = corpus.blocks("selection"), corpus.weights("selection")
    before = text_loss(model, blocks, precision, weights)
    data = TrainingData(corpus.blocks("train"), None, seed, corpus.weights("train"))
    run = Distillation(model, data, plain, settings.tokens, precision)
    if checkpoint.exists():
        before = np.asarray(run.restore(checkpoint)["before"])
    told = before.tolist()
    after_step = kept_and_said(run, checkpoint, checkpoint_seconds, "correction", say, before=told)
    run.advance(run.total_steps, after_step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    after = text_loss(model, blocks, precision, weights)
    say(
        f"correction: the teacher's cross-entropy {before.mean():.4f} -> {after.mean():.4f} "
        f"({after.mean() / before.mean() - 1:+.1%}) after {run.tokens:,} tokens"
    )
    return Correction(run.tokens, before, after)
