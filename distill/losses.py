"""Forward KL from the teacher's stored distribution, with a backward pass of its own.

A target is the probability of k tokens and the mass of all others as one bucket. Autograd through
log-softmax would walk the vocabulary several times; here one buffer of [tokens, vocab] holds the
softmax, then the gradient.
"""

from typing import Any

import torch
from torch import Tensor

_TINY = 1e-30


class _BucketedKL(torch.autograd.Function):
    """sum over tokens of KL(p || softmax(z)) where p is known on k tokens and a bucket."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, kept: Tensor, rest: Tensor) -> Tensor:
        buffer = torch.softmax(logits, -1, dtype=torch.float32)
        student = buffer.gather(-1, ids)
        buffer.scatter_(-1, ids, 0.0)
        student_rest = buffer.sum(-1, keepdim=True).clamp_min_(_TINY)
        rest = rest.unsqueeze(-1)
        terms = torch.xlogy(kept, kept) - kept * student.clamp_min(_TINY).log()
        bucket = torch.xlogy(rest, rest) - rest * student_rest.log()
        buffer.mul_(1 - rest / student_rest)
        buffer.scatter_(-1, ids, student - kept)
        ctx.save_for_backward(buffer)
        ctx.dtype = logits.dtype
        return terms.sum() + bucket.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (buffer,) = ctx.saved_tensors
        return buffer.mul_(grads[0]).to(ctx.dtype), None, None, None


def bucketed_forward_kl(
    logits: Tensor, ids: Tensor, kept: Tensor, rest: Tensor, temperature: float = 1.0
) -> Tensor:
    """Mean forward KL per token, in nats, from the k stored entries and the bucket.

    `logits` [tokens, vocab]; `ids` int64 and `kept` fp32 [tokens, k]; `rest` fp32 [tokens]; `kept`
    and `rest` sum to one. Stored at the same `temperature`; scaled by its square, so that gradients
    keep their size (Hinton et al., arXiv 1503.02531). May be differentiated once.
    """
    if temperature != 1.0:
        logits = logits / temperature
    return _BucketedKL.apply(logits, ids, kept, rest) * (temperature**2 / logits.shape[0])


def full_forward_kl(logits: Tensor, target_log_probs: Tensor) -> Tensor:
    """Forward KL [tokens] in nats from the whole distribution [tokens, vocab]. No gradient."""
    student = torch.log_softmax(logits.float(), -1)
    return (target_log_probs.exp() * (target_log_probs - student)).sum(-1)


def bucketed_kl_per_token(logits: Tensor, ids: Tensor, kept: Tensor, rest: Tensor) -> Tensor:
    """Forward KL [tokens] in nats from k entries and the bucket. No gradient.

    Never above the exact KL: merging outcomes can only hide a difference.
    """
    student = torch.log_softmax(logits.float(), -1)
    chosen = student.gather(-1, ids)
    others = student.exp().scatter(-1, ids, 0.0).sum(-1).clamp_min(_TINY).log()
    terms = (torch.xlogy(kept, kept) - kept * chosen).sum(-1)
    return terms + torch.xlogy(rest, rest) - rest * others
