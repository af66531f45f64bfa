"""What is learnt at some tokens: the teacher's answers, the text, and how much each counts."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from distill.loss.divergences import DistillationLoss
from distill.loss.head import Head, LogitScale
from distill.targets.batch import TargetBatch


@dataclass(frozen=True)
class TeacherHead:
    """A live teacher's answer before its projection: targets are made of it piece by piece."""

    head: Head
    """The teacher's."""
    hidden: Tensor
    """Its last hidden states [tokens, hidden]."""
    vocabulary: int
    """Tokens that both models know; columns beyond are padding."""
    temperature: float
    """Divides the teacher's logits."""
    device: torch.device
    """Where the targets are wanted."""

    @torch.no_grad()
    def piece(self, start: int, stop: int) -> "TeacherLogits":
        """Some tokens' logits, whose distributions are made block by block."""
        projection: Any = self.head.projection
        weight, bias = projection.weight, getattr(projection, "bias", None)
        raw = nn.functional.linear(self.hidden[start:stop].to(weight.dtype), weight, bias)
        return TeacherLogits(
            raw[:, : self.vocabulary], self.head.scale, self.temperature, self.device
        )


@dataclass(frozen=True)
class TeacherLogits:
    """A live teacher's logits of a piece."""

    raw: Tensor
    """What its projection gives [tokens, vocab], in its weights' type."""
    scale: LogitScale
    """What becomes of that."""
    temperature: float
    """Divides them."""
    device: torch.device
    """Where the targets are wanted."""

    def slice(self, start: int, stop: int) -> "TeacherLogits":
        """Those of some tokens; the memory is shared."""
        return replace(self, raw=self.raw[start:stop])

    @torch.no_grad()
    def distribution(self) -> TargetBatch:
        """The whole distribution of all tokens."""
        logits = self.scale.finish(self.raw) / self.temperature
        return TargetBatch.whole(logits.log_softmax(-1).to(self.device))


Target = TargetBatch | TeacherHead | None
"""A teacher's answers to some tokens, flattened; None: nothing is asked of it."""


@dataclass(frozen=True)
class Supervision:
    """Loss, targets, labels and weights for the predictions at some tokens."""

    loss: DistillationLoss
    """The loss of a prediction."""
    target: Target | TeacherLogits
    """The teacher's answers, flattened; a live teacher's as `piece` gives them."""
    labels: Tensor
    """int64 [tokens], the token that came next, or -1 where none is known."""
    token_weights: Tensor
    """fp32 [tokens, 2]: weights in the distillation loss and in the cross-entropy."""

    def piece(self, start: int, stop: int) -> "Supervision":
        """That of some tokens, for which a live teacher makes its logits."""
        if isinstance(self.target, TeacherHead):
            return self._of(self.target.piece(start, stop), start, stop)
        return self.slice(start, stop)

    def slice(self, start: int, stop: int) -> "Supervision":
        """That of some tokens of a piece; the memory is shared."""
        assert not isinstance(self.target, TeacherHead), "its logits are made by piece"
        target = None if self.target is None else self.target.slice(start, stop)
        return self._of(target, start, stop)

    def _of(self, target: Target | TeacherLogits, start: int, stop: int) -> "Supervision":
        labels, weights = self.labels[start:stop], self.token_weights[start:stop]
        return Supervision(self.loss, target, labels, weights)

    @property
    def on_one_device(self) -> bool:
        """Whether the teacher's answers are where the student's are."""
        target = self.target
        return not isinstance(target, TeacherLogits) or target.raw.device == self.labels.device

    def loss_and_gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of the loss over fp32 `logits` [tokens, vocab], and its gradient."""
        target = self.target
        if isinstance(target, TeacherLogits):
            target = target.distribution()
        assert not isinstance(target, TeacherHead), "a live teacher's logits are made by piece"
        return self.loss.loss_and_gradient(
            logits, target, labels=self.labels, token_weights=self.token_weights
        )
