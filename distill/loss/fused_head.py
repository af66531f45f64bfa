"""Fused head: from last hidden states to the loss without ever holding all logits.

Logits of [batch, sequence, vocab] are the largest tensor of a distillation step. They are made here
for some tokens at a time, and so is their gradient, in the forward pass: the backward pass only
hands on what is known by then. Matrix products use large pieces; the loss uses blocks that fit a
processor's cache; the gradient overwrites the logits in place.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill.loss.divergences import DistillationLoss
from distill.targets.batch import TargetBatch

CHUNK_ELEMENTS = 2**26
"""Logits held at once, at most (128 MB in bf16), though never fewer than a token's. Every piece is
added to the gradient of the whole projection once, so that smaller ones cost time."""
_CPU_BLOCK = 2**18
"""Logits that a thread turns into a gradient at a time: 1 MB in fp32."""
_OTHER_BLOCK = 2**25
"""The same of other devices at a time."""
_PROBE = 8
"""Tokens that a head is tried on."""
_TOLERANCE, _NARROW_TOLERANCE = 1e-3, 3e-2
"""By how much its logits may be off, in fp32 and in types of 16 bits."""


@dataclass(frozen=True)
class Head:
    """Output head of a model: projects its last hidden states, then scales or caps the logits."""

    projection: nn.Module
    """The output embedding: `weight` [vocab, hidden] and perhaps `bias` [vocab]."""
    divisor: float = 1.0
    """Divides the projection's output."""
    cap: float | None = None
    """Logits z become cap * tanh(z / cap)."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any) -> "Head | None":
        """The head of a stock causal LM, or None where it does something else.

        Tried on a few tokens against the model's own logits, so that a type that is not foreseen
        here is noticed.
        """
        config = model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        projection = model.get_output_embeddings()
        weight = getattr(projection, "weight", None)
        if weight is None or weight.device.type == "meta" or model.base_model is model:
            return None
        ids = torch.arange(_PROBE, device=weight.device).unsqueeze(0) % weight.shape[0]
        training = model.training
        model.eval()
        logits = model(input_ids=ids, use_cache=False).logits
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        model.train(training)
        tolerance = _TOLERANCE if weight.dtype == torch.float32 else _NARROW_TOLERANCE
        for divisor in _divisors(config):
            head = cls(projection, divisor, None if cap is None else float(cap))
            ours = head.logits(hidden, weight, getattr(projection, "bias", None)).to(logits.dtype)
            if ours.shape == logits.shape and torch.allclose(ours, logits, tolerance, tolerance):
                return head
        return None

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """fp32 logits [..., vocab] of `hidden` [..., hidden]."""
        return self.finish(nn.functional.linear(hidden, weight, bias))

    def finish(self, raw: Tensor) -> Tensor:
        """fp32 logits [..., vocab] of the projection's output."""
        raw = raw.float()
        if self.divisor != 1.0:
            raw = raw / self.divisor
        return raw if self.cap is None else self.cap * torch.tanh(raw / self.cap)

    def pull(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """The gradient by the projection's output, from that by `logits`; in place."""
        if self.cap is not None:
            gradient.mul_(1 - (logits / self.cap).square())
        return gradient.div_(self.divisor) if self.divisor != 1.0 else gradient


def _divisors(config: Any) -> list[float]:
    """What a type may divide its logits by: Granite by a value of its configuration, HyperCLOVA X,
    Cohere and Falcon-H1 by the inverse of one."""
    scaling = float(getattr(config, "logits_scaling", 1.0))
    factors = [getattr(config, name, None) for name in ("logit_scale", "lm_head_multiplier")]
    return [scaling, 1 / scaling, *(1 / float(factor) for factor in factors if factor)]


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
        logits = self.head.logits(self.hidden[start:stop].to(weight.dtype), weight, bias)
        return TeacherLogits(logits[:, : self.vocabulary], self.temperature, self.device)

    def slice(self, start: int, stop: int) -> TargetBatch:
        """The whole distribution of some tokens."""
        return self.piece(start, stop).slice(0, stop - start)


@dataclass(frozen=True)
class TeacherLogits:
    """A live teacher's logits of a piece."""

    logits: Tensor
    """fp32 [tokens, vocab]."""
    temperature: float
    """Divides them."""
    device: torch.device
    """Where the targets are wanted."""

    @torch.no_grad()
    def slice(self, start: int, stop: int) -> TargetBatch:
        """The whole distribution of some tokens."""
        log_probs = (self.logits[start:stop] / self.temperature).log_softmax(-1).to(self.device)
        return TargetBatch.whole(log_probs)


Target = TargetBatch | TeacherHead | None
"""A teacher's answers to some tokens, flattened; None: nothing is asked of it."""


@dataclass(frozen=True)
class Supervision:
    """Loss, targets, labels and weights for the predictions at some tokens."""

    loss: DistillationLoss
    """The loss of a prediction."""
    target: Target | TeacherLogits
    """The teacher's answers, flattened."""
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
        """That of some tokens, for which a live teacher makes its distributions."""
        target = None if self.target is None else self.target.slice(start, stop)
        return self._of(target, start, stop)

    def _of(self, target: Target | TeacherLogits, start: int, stop: int) -> "Supervision":
        labels, weights = self.labels[start:stop], self.token_weights[start:stop]
        return Supervision(self.loss, target, labels, weights)

    def loss_and_gradient(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of the loss over fp32 `logits` [tokens, vocab], and its gradient."""
        target = self.target
        assert target is None or isinstance(target, TargetBatch), "distributions are made by slice"
        return self.loss.loss_and_gradient(
            logits, target, labels=self.labels, token_weights=self.token_weights
        )


class _ProjectedLoss(torch.autograd.Function):
    """The loss of hidden states [tokens, hidden], piece by piece."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        supervision: Supervision,
    ) -> Tensor:
        compute_dtype = _compute_dtype(hidden)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        by_bias = None if bias is None else torch.zeros_like(bias)
        used = weight.to(compute_dtype)
        added = None if bias is None else bias.to(compute_dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for start, stop in _pieces(len(hidden), weight.shape[0]):
                piece = hidden[start:stop].to(compute_dtype)
                gradient = nn.functional.linear(piece, used, added)  # logits, as yet
                known = supervision.piece(start, stop)
                total += _differentiate(gradient, gradient, known, head=head)
                if by_bias is not None:
                    by_bias += gradient.sum(0, dtype=by_bias.dtype)
                if by_hidden is not None:
                    by_hidden[start:stop] = gradient @ used
                if by_weight is not None:
                    _accumulate(by_weight, gradient, piece, first=start == 0)
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            None if known is None else known if grads[0] == 1 else known * grads[0]
            for known in ctx.saved_tensors
        ]
        return (*scaled, None, None)


class _LogitsLoss(torch.autograd.Function):
    """The same of logits [tokens, vocab] that a model has made already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, supervision: Supervision) -> Tensor:
        gradient = torch.empty_like(logits)
        total = logits.new_zeros((), dtype=torch.float32)
        for start, stop in _pieces(*logits.shape):
            known = supervision.piece(start, stop)
            total += _differentiate(logits[start:stop], gradient[start:stop], known)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None


def projected_loss(head: Head, hidden: Tensor, supervision: Supervision) -> Tensor:
    """The weighted sum of the loss over hidden states [tokens, hidden], with its gradient."""
    projection: Any = head.projection
    bias = getattr(projection, "bias", None)
    return _apply(_ProjectedLoss, hidden, projection.weight, bias, head, supervision)


def logits_loss(logits: Tensor, supervision: Supervision) -> Tensor:
    """The weighted sum of the loss over logits [tokens, vocab], with its gradient."""
    return _apply(_LogitsLoss, logits, supervision)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    loss: Tensor = function.apply(*arguments)
    return loss


def _differentiate(
    raw: Tensor, gradient: Tensor, supervision: Supervision, *, head: Head | None = None
) -> Tensor:
    """The loss of a piece; writes its gradient by `raw` [tokens, vocab], which may be its place."""
    total = raw.new_zeros((), dtype=torch.float32)
    for start, stop in _blocks(len(raw), raw.shape[-1], raw.device):
        logits = raw[start:stop].float() if head is None else head.finish(raw[start:stop])
        loss, by_logits = supervision.slice(start, stop).loss_and_gradient(logits)
        total += loss
        gradient[start:stop] = by_logits if head is None else head.pull(by_logits, logits)
    return total


def _pieces(tokens: int, vocabulary: int) -> list[tuple[int, int]]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _blocks(tokens: int, vocabulary: int, device: torch.device) -> list[tuple[int, int]]:
    cpu = device.type == "cpu"
    size = max(1, (_CPU_BLOCK * torch.get_num_threads() if cpu else _OTHER_BLOCK) // vocabulary)
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The type that autocast would multiply in; the projection is outside its reach here."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _accumulate(total: Tensor, gradient: Tensor, hidden: Tensor, *, first: bool) -> None:
    """Add gradient^T hidden to `total` [vocab, hidden], which may be of a wider type.

    Where it is the first, `total` need not hold anything.
    """
    if first:
        total.copy_(gradient.T @ hidden)
    elif total.dtype == hidden.dtype:
        total.addmm_(gradient.T, hidden)
    else:
        total += gradient.T @ hidden
