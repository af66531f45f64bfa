"""How close a student is to its teacher on a split, sequence by sequence.

The same sequences for every candidate, so that differences can be paired. Forward KL ranks;
cross-entropy and top-1 agreement are reported beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.losses import bucketed_kl_per_token, full_forward_kl
from distill.precision import autocast
from distill.targets import TargetBatch, Targets, blocks_at_once


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
        return {name: float(np.mean(getattr(self, name))) for name in METRICS}

    def to_dict(self) -> dict[str, list[float]]:
        return {name: getattr(self, name).tolist() for name in METRICS}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> "Evaluation":
        return cls(**{name: np.asarray(values[name]) for name in METRICS})


METRICS = ("kl", "ce", "top1_agreement")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    blocks: NDArray[Any],
    targets: Targets,
    precision: str = "fp32",
    batch: int | None = None,
) -> Evaluation:
    """Score `model` on `blocks` [sequences, sequence], whose targets are in slots 0, 1, ..."""
    batch = batch or blocks_at_once(blocks.shape[1], targets.format.vocabulary)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks[start : start + batch].astype(np.int64)).to(device)
        slots = np.arange(start, start + len(ids))
        with autocast(device, precision):
            logits = model(input_ids=ids, use_cache=False).logits
        rows.append(_score(logits.float(), ids, targets.batch(slots, device)))
    model.train(was_training)
    columns: Iterable[tuple[Tensor, ...]] = zip(*rows, strict=True)
    return Evaluation(*(torch.cat(column).double().cpu().numpy() for column in columns))


@torch.no_grad()
def evaluate_live(
    student: nn.Module,
    teacher: nn.Module,
    blocks: NDArray[Any],
    precision: str = "fp32",
    batch: int = 1,
) -> tuple[Evaluation, NDArray[np.float64]]:
    """Score `student` on `blocks` [sequences, sequence] against the teacher itself.

    Also returns the teacher's own cross-entropy, nats per token [sequences]. Both models may be
    spread over devices.
    """
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    own: list[Tensor] = []
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks[start : start + batch].astype(np.int64))
        taught, learnt = (_logits(model, ids, precision) for model in (teacher, student))
        log_probs = taught.log_softmax(-1)
        target = TargetBatch(ids=None, log_probs=log_probs, rest=torch.zeros(ids.shape))
        rows.append(_score(learnt, ids, target))
        own.append(_cross_entropy(log_probs, ids))
    columns: Iterable[tuple[Tensor, ...]] = zip(*rows, strict=True)
    evaluation = Evaluation(*(torch.cat(column).double().numpy() for column in columns))
    return evaluation, torch.cat(own).double().numpy()


def _logits(model: Any, ids: Tensor, precision: str) -> Tensor:
    """[batch, sequence, vocab] in fp32 on the CPU."""
    device = next(p for p in model.parameters() if p.device.type != "meta").device
    with autocast(device, precision):
        logits: Tensor = model.eval()(input_ids=ids.to(device), use_cache=False).logits
    return logits.float().cpu()


def _cross_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    """To the text, nats per token [sequences]."""
    flat = logits[:, :-1].flatten(0, 1)
    ce = torch.nn.functional.cross_entropy(flat, ids[:, 1:].flatten(), reduction="none")
    return ce.view(len(ids), -1).mean(1)


def _score(logits: Tensor, ids: Tensor, target: TargetBatch) -> tuple[Tensor, Tensor, Tensor]:
    """(KL, cross-entropy, agreement) [sequences] of logits [sequences, sequence, vocab]."""
    flat = logits.flatten(0, 1)
    if target.ids is None:
        kl = full_forward_kl(flat, target.log_probs.flatten(0, 1))
        likeliest = target.log_probs.argmax(-1)
    else:
        kept = target.log_probs.exp().flatten(0, 1)
        kl = bucketed_kl_per_token(flat, target.ids.flatten(0, 1), kept, target.rest.flatten())
        likeliest = target.ids[..., 0]
    agreement = (logits.argmax(-1) == likeliest).float()
    return kl.view_as(ids).mean(1), _cross_entropy(logits, ids), agreement.mean(1)


def teacher_cross_entropy(targets: Targets, sequences: int, block: int) -> NDArray[np.float64]:
    """The teacher's own cross-entropy, nats per token [sequences], from its stored targets."""
    following = targets.next_log_probs(np.arange(sequences)).astype(np.float64)
    means: NDArray[np.float64] = -following.sum(1) / (block - 1)
    return means
