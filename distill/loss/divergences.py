"""Losses between a teacher's targets and a student's logits, with gradients written by hand.

A target names k outcomes of the next token and, where they are not all, one bucket of the others.
Autograd through log-softmax would walk the vocabulary several times; here one buffer of
[tokens, vocab] holds the softmax, then the gradient. What the outcomes' probabilities s cost, L(s),
enters only by its value and by w = s dL/ds; the gradient by logit j of outcome c is then
s_j (w_c / s_c - sum of all w).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import DistillError
from distill.loss.names import (
    CROSS_ENTROPY,
    FORWARD_KL,
    JENSEN_SHANNON,
    LOSSES,
    MEAN_SQUARES,
    REVERSE_KL,
)
from distill.targets.batch import TargetBatch

_TINY = 1e-30
_LOWEST = -1e5
"""A log-probability of nothing."""


def _forward_kl(p: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return torch.xlogy(p, p) - p * s.clamp_min(_TINY).log(), -p


def _reverse_kl(p: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.xlogy(s, s) - s * p.clamp_min(_TINY).log()
    return value, value


def _jensen_shannon(p: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    middle = ((p + s) / 2).clamp_min(_TINY)
    by_student = 0.5 * (torch.xlogy(s, s) - s * middle.log())
    return 0.5 * (torch.xlogy(p, p) - p * middle.log()) + by_student, by_student


_DIVERGENCES: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    FORWARD_KL: _forward_kl,
    REVERSE_KL: _reverse_kl,
    JENSEN_SHANNON: _jensen_shannon,
}


@dataclass(frozen=True)
class DistillationLoss:
    """Loss that a student is trained on: to its teacher, to the text, or both."""

    loss: str = FORWARD_KL
    """One of `LOSSES`."""
    temperature: float = 1.0
    """Divides both models' logits; the loss is scaled by its square, so that gradients keep their
    size (Hinton et al., arXiv 1503.02531)."""
    lm_weight: float = 0.0
    """Weight of the next-token cross-entropy that is added."""

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise DistillError(f"loss is {self.loss!r}; it must be one of {', '.join(LOSSES)}")

    @property
    def text_weight(self) -> float:
        """Weight of the cross-entropy, which is the whole of the loss `ce`."""
        return 1.0 if self.loss == CROSS_ENTROPY else self.lm_weight

    def loss_and_gradient(
        self,
        logits: Tensor,
        target: TargetBatch | None,
        *,
        labels: Tensor,
        token_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The loss of some tokens, weighted and summed, and its gradient by `logits`.

        `logits` [tokens, vocab] in fp32; `labels` int64 [tokens], the token that came next, or -1
        where none is known; `token_weights` [tokens, 2]: those in the distillation loss and in the
        cross-entropy.
        """
        gradient: Tensor | None = None
        total = logits.new_zeros(())
        if target is not None and self.loss != CROSS_ENTROPY:
            losses, gradient = token_losses(
                logits, target, loss=self.loss, temperature=self.temperature
            )
            total = total + (losses * token_weights[:, 0]).sum()
            gradient.mul_(token_weights[:, :1])
        if self.text_weight:
            losses, by_text = cross_entropy(logits, labels)
            weights = token_weights[:, 1] * self.text_weight
            total = total + (losses * weights).sum()
            by_text.mul_(weights.unsqueeze(-1))
            gradient = by_text if gradient is None else gradient.add_(by_text)
        assert gradient is not None, "a loss other than cross-entropy has targets"
        return total, gradient


def token_losses(
    logits: Tensor, target: TargetBatch, *, loss: str = FORWARD_KL, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss of each token [tokens], in nats, and its gradient by `logits` [tokens, vocab].

    `target` is flattened to [tokens, k] and was made at the same `temperature`. A bucketed
    divergence is never above the exact one: merging outcomes can only hide a difference. Targets
    that were sampled estimate the forward KL without bias (arXiv 2503.16870), and nothing else.
    """
    scaled = logits.float()
    if temperature != 1.0:
        scaled = scaled / temperature
    if loss == MEAN_SQUARES:
        losses, gradient = _mean_squares(scaled, target)
    elif target.share is not None:
        losses, gradient = _sampled(scaled, target)
    else:
        losses, gradient = _divergence(scaled, target, loss)
    if temperature != 1.0:
        losses, gradient = losses * temperature**2, gradient.mul_(temperature)
    return losses, gradient


def _divergence(logits: Tensor, target: TargetBatch, loss: str) -> tuple[Tensor, Tensor]:
    if target.ids is None and loss == "forward-kl":
        return _whole_forward_kl(logits, target.log_probs)
    measure = _DIVERGENCES[loss]
    buffer = torch.softmax(logits, -1)
    p = target.log_probs.exp()
    if target.ids is None:
        p = functional.pad(p, (0, buffer.shape[-1] - p.shape[-1]))
        values, weights = measure(p, buffer)
        return values.sum(-1), weights - buffer.mul_(weights.sum(-1, keepdim=True))
    s = buffer.gather(-1, target.ids)
    buffer.scatter_(-1, target.ids, 0.0)
    others = buffer.sum(-1, keepdim=True).clamp_min_(_TINY)
    values, weights = measure(p, s)
    value, weight = measure(target.tail_probability.unsqueeze(-1), others)
    total = weights.sum(-1, keepdim=True) + weight
    buffer.mul_(weight / others - total)
    buffer.scatter_(-1, target.ids, weights - s * total)
    return values.sum(-1) + value.squeeze(-1), buffer


def _whole_forward_kl(logits: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """As `_divergence`, in half the walks over the vocabulary: the gradient is q - p."""
    known = known.clamp_min(_LOWEST)  # no probability times an infinite logarithm is nothing
    width = known.shape[-1]
    buffer = torch.log_softmax(logits, -1)
    p = known.exp()
    student = buffer[:, :width].clamp_min(math.log(_TINY))
    losses = known.sub_(student).mul_(p).sum(-1)
    buffer.exp_().mul_(p.sum(-1, keepdim=True))
    buffer[:, :width].sub_(p)
    return losses, buffer


def _sampled(logits: Tensor, target: TargetBatch) -> tuple[Tensor, Tensor]:
    assert target.ids is not None and target.share is not None
    buffer = torch.softmax(logits, -1)
    student = buffer.gather(-1, target.ids).clamp_min_(_TINY).log_()
    losses = (target.share * (target.log_probs - student)).sum(-1)
    return losses, buffer.scatter_add_(-1, target.ids, -target.share)


def _mean_squares(logits: Tensor, target: TargetBatch) -> tuple[Tensor, Tensor]:
    """Of logits, both centred over the target's entries: softmax does not see a shift."""
    entries = target.log_probs
    width = entries.shape[-1]
    chosen = logits[:, :width] if target.ids is None else logits.gather(-1, target.ids)
    difference = chosen - entries
    difference = difference - difference.mean(-1, keepdim=True)
    gradient = difference * (2 / width)
    spread = torch.zeros_like(logits)
    if target.ids is None:
        spread[:, :width] = gradient
    else:
        spread.scatter_(-1, target.ids, gradient)
    return difference.square().mean(-1), spread


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy [tokens] to `labels`, 0 where a label is negative, and its gradient."""
    known = labels >= 0
    labels = labels.clamp_min(0).unsqueeze(-1)
    buffer = torch.softmax(logits, -1, dtype=torch.float32)
    losses = -buffer.gather(-1, labels).clamp_min(_TINY).log().squeeze(-1) * known
    buffer.mul_(known.unsqueeze(-1))
    buffer.scatter_add_(-1, labels, -known.unsqueeze(-1).to(buffer.dtype))
    return losses, buffer
