"""Evaluation of a student against its teacher on a split, sequence by sequence.

The same sequences for every candidate, so that differences can be paired. Forward KL ranks;
cross-entropy and top-1 agreement are reported beside it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.backend.parallel import ALONE, World
from distill.backend.placing import placed
from distill.backend.precision import autocast
from distill.data.corpus import Corpus
from distill.evaluation.logits import logits_on_cpu
from distill.loss.divergences import token_losses
from distill.targets.batch import TargetBatch
from distill.targets.encode import blocks_at_once
from distill.targets.store import Targets

LARGEST_EXPONENT = 700.0
"""Nats above which a perplexity is no longer a float."""


def perplexity(cross_entropy: float) -> float:
    """Of a cross-entropy in nats per token; that of the largest float's for all above it."""
    return math.exp(min(cross_entropy, LARGEST_EXPONENT))


@dataclass(frozen=True)
class Evaluation:
    """Means per sequence, fp64 [sequences]."""

    kl: NDArray[np.float64]
    """Forward KL to the teacher, nats per token."""
    ce: NDArray[np.float64]
    """Cross-entropy to the text, nats per token."""
    top1_agreement: NDArray[np.float64]
    """Share of the tokens where student and teacher agree on the likeliest next one."""

    def means(self) -> dict[str, float]:
        """Mean over the sequences, by metric."""
        return {name: float(np.mean(getattr(self, name))) for name in METRICS}

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON has it."""
        return {name: getattr(self, name).tolist() for name in METRICS}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> "Evaluation":
        """From what `to_dict` gave."""
        return cls(**{name: np.asarray(values[name]) for name in METRICS})


METRICS = ("kl", "ce", "top1_agreement")
"""Fields of an `Evaluation`."""


@dataclass(frozen=True)
class HeldOut:
    """Sequences that students are scored on."""

    blocks: NDArray[Any]
    """Tokens [sequences, sequence]."""
    targets: Targets
    """The teacher's answers to them, in slots 0, 1, ..."""
    weights: NDArray[np.bool_] | None = None
    """Whether the prediction at a token counts [sequences, sequence]; None: all do."""

    @classmethod
    def of(cls, corpus: Corpus, split: str, targets: Path) -> "HeldOut":
        """A split of a corpus, with its targets in a directory."""
        return cls(corpus.blocks(split), Targets(targets), corpus.weights(split))


def evaluate(
    model: nn.Module,
    blocks: NDArray[Any],
    *,
    targets: Targets,
    weights: NDArray[np.bool_] | None = None,
    precision: str = "fp32",
) -> Evaluation:
    """Score `model` on `blocks` [sequences, sequence], whose targets are in slots 0, 1, ...

    `weights` [sequences, sequence] says which predictions count; all, where it is not given.
    """
    return evaluate_on(model, HeldOut(blocks, targets, weights), precision=precision)


@torch.no_grad()
def evaluate_on(
    model: nn.Module,
    held_out: HeldOut,
    *,
    precision: str = "fp32",
    logits_of: Callable[[Tensor], Tensor] | None = None,
    world: World = ALONE,
) -> Evaluation:
    """Score `model`, on one process or several.

    `logits_of` replaces the model's own forward pass. The processes of `world` share the sequences;
    all of them must call it, and all get the whole.
    """
    blocks, targets, weights = held_out.blocks, held_out.targets, held_out.weights
    batch = blocks_at_once(blocks.shape[1], targets.format.vocabulary)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    run = logits_of or (lambda ids: model(input_ids=ids, use_cache=False).logits)
    rows: list[Tensor] = []
    for slots in _shared(len(blocks), batch, world):
        ids = placed(blocks[slots].astype(np.int64), device)
        counted = None if weights is None else placed(weights[slots], device)
        with autocast(device, precision):
            logits = run(ids)
        rows.append(
            torch.stack(
                _score(logits.float(), ids, target=targets.batch(slots, device), counted=counted)
            )
        )
    model.train(was_training)
    mine = torch.cat(rows, 1).double().cpu().numpy()
    values = np.concatenate(world.gather(mine), 1)
    order = np.concatenate([np.concatenate(_shared(len(blocks), batch, w)) for w in world.all()])
    _, first = np.unique(order, return_index=True)  # sequences that several processes had to take
    return Evaluation(*values[:, first])


def _shared(count: int, batch: int, world: World) -> list[NDArray[np.int64]]:
    """The sequences of each forward pass of this process.

    Every process has as many passes; where they do not come out even, some sequences are repeated.
    """
    per_process = -(-count // world.size)
    mine = (np.arange(per_process) + world.rank * per_process) % count
    return [mine[start : start + batch] for start in range(0, per_process, batch)]


@torch.no_grad()
def text_loss(
    model: Any,
    blocks: NDArray[Any],
    *,
    weights: NDArray[np.bool_] | None = None,
    precision: str = "fp32",
) -> NDArray[np.float64]:
    """Cross-entropy of `blocks` [sequences, sequence] under `model`, nats per token [sequences].

    `weights` [sequences, sequence] says which predictions count; all, where it is not given.
    """
    batch = blocks_at_once(blocks.shape[1], model.config.get_text_config().vocab_size)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    losses: list[Tensor] = []
    for start in range(0, len(blocks), batch):
        ids = placed(blocks[start : start + batch].astype(np.int64), device)
        counted = None
        if weights is not None:
            counted = placed(weights[start : start + batch], device)
        with autocast(device, precision):
            logits = model(input_ids=ids, use_cache=False).logits
        losses.append(_cross_entropy(logits.float(), ids, counted))
    model.train(was_training)
    return torch.cat(losses).double().cpu().numpy()


@torch.no_grad()
def evaluate_live(
    student: nn.Module,
    teacher: nn.Module,
    *,
    blocks: NDArray[Any],
    precision: str = "fp32",
    batch: int = 1,
) -> tuple[Evaluation, NDArray[np.float64]]:
    """Score `student` on `blocks` [sequences, sequence] against the teacher itself.

    Also returns the teacher's own cross-entropy, nats per token [sequences]. Both models may be
    spread over devices.
    """
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    teacher_losses: list[Tensor] = []
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks[start : start + batch].astype(np.int64))
        taught, learnt = (logits_on_cpu(model, ids, precision) for model in (teacher, student))
        log_probs = taught.log_softmax(-1)
        target = TargetBatch.whole(log_probs)
        rows.append(_score(learnt, ids, target=target))
        teacher_losses.append(_cross_entropy(log_probs, ids))
    columns: Iterable[tuple[Tensor, ...]] = zip(*rows, strict=True)
    evaluation = Evaluation(*(torch.cat(column).double().numpy() for column in columns))
    return evaluation, torch.cat(teacher_losses).double().numpy()


def _cross_entropy(logits: Tensor, ids: Tensor, counted: Tensor | None = None) -> Tensor:
    """To the text, nats per token [sequences]."""
    flat = logits[:, :-1].flatten(0, 1)
    ce = torch.nn.functional.cross_entropy(flat, ids[:, 1:].flatten(), reduction="none")
    return _mean(ce.view(len(ids), -1), None if counted is None else counted[:, :-1])


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Of the tokens that count, by sequence: [sequences] of [sequences, sequence]."""
    if counted is None:
        return values.mean(1)
    return (values * counted).sum(1) / counted.sum(1)


def _score(
    logits: Tensor, ids: Tensor, *, target: TargetBatch, counted: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(KL, cross-entropy, agreement) [sequences] of logits [sequences, sequence, vocab]."""
    kl, _ = token_losses(logits.flatten(0, 1), target.tokens())
    likeliest = target.log_probs.argmax(-1) if target.ids is None else target.ids[..., 0]
    agreement = (logits.argmax(-1) == likeliest).float()
    return (
        _mean(kl.view_as(ids), counted),
        _cross_entropy(logits, ids, counted),
        _mean(agreement, counted),
    )


def teacher_cross_entropy(
    targets: Targets, sequences: int, weights: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """The teacher's own cross-entropy, nats per token [sequences], from its stored targets.

    `weights` [sequences, sequence] says which predictions count; all, where it is not given.
    """
    following = -targets.next_log_probs(np.arange(sequences)).astype(np.float64)[:, :-1]
    counted = np.ones(following.shape) if weights is None else weights[:, :-1]
    means: NDArray[np.float64] = (following * counted).sum(1) / counted.sum(1)
    return means
