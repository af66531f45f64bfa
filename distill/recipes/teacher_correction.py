"""Teacher correction: fine-tune the teacher on a corpus it was not trained on, before it teaches.

Minitron in practice (arXiv 2408.11796): 120 warm-up steps and a fifth of the peak learning rate.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.corpus import Corpus
from distill.evaluation.scores import text_loss
from distill.loss.names import CROSS_ENTROPY
from distill.recipes.callbacks import checkpoint_and_log
from distill.train.limits import RunLimits
from distill.train.settings import ADAMW, COSINE, ResolvedTraining, default_rate
from distill.train.trainer import Distillation, TrainingData

LOGGER = logging.getLogger(__name__)
SHARE_OF_RATE = 0.2
"""The peak learning rate, as a share of that of distillation."""
WARMUP_STEPS = 120
"""Steps that the learning rate takes to rise, or half of a run that has fewer than two times."""


@dataclass(frozen=True)
class Correction:
    """Result of a correction."""

    tokens: int
    """Training tokens read."""
    before: NDArray[np.float64]
    """The teacher's cross-entropy on held-out text before, nats per token [sequences]."""
    after: NDArray[np.float64]
    """The same after."""


@dataclass(frozen=True)
class CorrectionPlan:
    """How a teacher is corrected."""

    learning_rate: float | None
    """Peak learning rate, as in `CorrectionSettings`."""
    training: ResolvedTraining
    """Its batch, memory and precision are used, and the decay of weights."""
    seed: int
    """Fixes the order of the text."""
    dtype: torch.dtype
    """Type that the corrected teacher is kept in."""
    limits: RunLimits
    """Training tokens and the checkpoint; no evaluations are made on the way."""

    def resolved(self, parameters: int, block: int) -> ResolvedTraining:
        """How a teacher of so many parameters learns from sequences of `block` tokens."""
        steps = max(1, self.limits.tokens // (self.training.batch * block))
        return replace(
            self.training,
            loss=CROSS_ENTROPY,
            learning_rate=self.learning_rate or SHARE_OF_RATE * default_rate(parameters),
            warmup_steps=min(WARMUP_STEPS, steps // 2),
            schedule=COSINE,
            optimizer=ADAMW,
            average=None,
            lm_weight=0.0,
        )


def correct_teacher(model: Any, corpus: Corpus, *, plan: CorrectionPlan) -> Correction:
    """Train `model` in place on the text of the training split, from a checkpoint if there is one.

    At the end the weights are rounded to the type in which they will be kept, before they are
    measured. Raises what `Distillation` raises.
    """
    training = plan.resolved(sum(p.numel() for p in model.parameters()), corpus.block)
    precision, checkpoint = training.precision, plan.limits.checkpoint
    blocks, weights = corpus.blocks("selection"), corpus.weights("selection")
    before = text_loss(model, blocks, weights=weights, precision=precision)
    data = TrainingData(corpus.blocks("train"), None, plan.seed, corpus.weights("train"))
    run = Distillation(model, data, training=training, tokens=plan.limits.tokens)
    if checkpoint is not None and checkpoint.exists():
        before = np.asarray(run.restore(checkpoint)["before"])
    after_step = checkpoint_and_log(run, plan.limits, name="correction", before=before.tolist())
    run.advance(run.total_steps, after_step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(plan.dtype))
    after = text_loss(model, blocks, weights=weights, precision=precision)
    LOGGER.info(
        f"correction: the teacher's cross-entropy {before.mean():.4f} -> {after.mean():.4f} "
        f"({after.mean() / before.mean() - 1:+.1%}) after {run.tokens:,} tokens"
    )
    return Correction(run.tokens, before, after)
