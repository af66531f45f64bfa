"""How wrong loss and gradient are that a form of stored targets gives; see `targets.py`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.loss import token_losses
from distill.targets import SampledCodec, TargetBatch, unpack_ids
from experiments.benchmarks.distill.targets_setting import Setting


@dataclass(frozen=True)
class Errors:
    """Loss and gradient errors of one form; a share of the live value's size each."""

    loss_bias: float
    loss_bias_error: float
    """Standard error of `loss_bias`, and so on."""
    loss_noise: float
    """Standard deviation per token over the draws, by the mean KL."""
    logits_bias: float
    logits_bias_error: float
    logits_noise: float
    hidden_bias: float
    hidden_bias_error: float
    hidden_noise: float


def rounded(log_probs: Tensor) -> Tensor:
    """As they come back from the disk."""
    return log_probs.clamp_min(-6e4).half().float()


def systematic(setting: Setting, draws: int, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, ids and shares [entries] of one draw for every token, as `distill` makes it."""
    codec = SampledCodec(setting.vocabulary, draws=draws, seed=draws)
    drawn = codec.draw(setting.teacher, turn)
    rows = torch.arange(len(setting.teacher)).repeat_interleave(_whole(drawn["lengths"]))
    return rows, torch.from_numpy(unpack_ids(drawn)), _whole(drawn["counts"]) / draws


def _whole(values: Any) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def independent(setting: Setting, draws: int, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same of independent draws, as in arXiv 2503.16870."""
    generator = torch.Generator().manual_seed(1000 * draws + turn)
    ids = torch.multinomial(setting.teacher.exp(), draws, True, generator=generator).flatten()
    rows = torch.arange(len(setting.teacher)).repeat_interleave(draws)
    return rows, ids, torch.full(ids.shape, 1 / draws)


Sampler = Callable[[Setting, int, int], tuple[Tensor, Tensor, Tensor]]


def sampled_errors(setting: Setting, sampler: Sampler, draws: int, repetitions: int) -> Errors:
    """Errors over many draws. The bias of a gradient is the product of two halves' mean errors."""
    probs = setting.teacher.exp()
    tokens = len(probs)
    live_hidden = probs @ setting.embedding
    squares = (probs**2).sum(-1)
    halves = [torch.zeros_like(probs), torch.zeros_like(probs)]
    losses, logits_noise, hidden = [], [], []
    for turn in range(repetitions):
        rows, ids, share = sampler(setting, draws, turn)
        terms = share * (rounded(setting.teacher[rows, ids]) - setting.student[rows, ids])
        losses.append(torch.zeros(tokens).index_add_(0, rows, terms))
        halves[turn % 2].index_put_((rows, ids), share, accumulate=True)
        apart = torch.zeros(tokens).index_add_(0, rows, share * probs[rows, ids])
        again = torch.sparse_coo_tensor(
            torch.stack([rows, ids]), share, probs.shape, check_invariants=False
        ).coalesce()
        drawn = torch.zeros(tokens).index_add_(0, again.indices()[0], again.values() ** 2)
        logits_noise.append(squares - 2 * apart + drawn)
        hidden.append(live_hidden - torch.sparse.mm(again, setting.embedding))
    means = [probs - half / (repetitions / 2) for half in halves]
    of_hidden = torch.stack(hidden)
    hidden_means = [of_hidden[first::2].mean(0) for first in (0, 1)]
    kl, loss = setting.kl, torch.stack(losses)
    of_turns = loss.mean(1)
    size_logits, size_hidden = _sizes(setting)
    logits_bias = _cross(means[0], means[1], size_logits)
    hidden_bias = _cross(hidden_means[0], hidden_means[1], size_hidden)
    return Errors(
        float(of_turns.mean() / kl.mean() - 1),
        float(of_turns.std() / math.sqrt(repetitions) / kl.mean()),
        float(loss.var(0).mean().sqrt() / kl.mean()),
        *logits_bias,
        _share(torch.stack(logits_noise).mean(), size_logits),
        *hidden_bias,
        _share((of_hidden**2).sum(-1).mean(), size_hidden),
    )


def _sizes(setting: Setting) -> tuple[Tensor, Tensor]:
    """Mean squared lengths of the live gradients by logits and by hidden states."""
    gradient = setting.student.exp() - setting.teacher.exp()
    return (gradient**2).sum(-1).mean(), ((gradient @ setting.embedding) ** 2).sum(-1).mean()


def _share(squared: Tensor, size: Tensor) -> float:
    return float((squared.clamp_min(0) / size).sqrt())


def _cross(one: Tensor, two: Tensor, size: Tensor) -> tuple[float, float]:
    """Size of the bias, free of the noise, and its standard error over the tokens.

    Of independent halves, so that the square is right on average; it may be negative by chance.
    """
    products = (one * two).sum(-1) / size
    square = max(0.0, float(products.mean()))
    above = square + float(products.std()) / math.sqrt(len(products))
    return math.sqrt(square), math.sqrt(above) - math.sqrt(square)


def fixed_errors(setting: Setting, loss: Tensor, target: Tensor) -> Errors:
    """Errors of a form without chance: `loss` [tokens], and `target` in place of p in q - p."""
    kl, off = setting.kl, setting.teacher.exp() - target
    size_logits, size_hidden = _sizes(setting)
    squares = (off**2).sum(-1).mean(), ((off @ setting.embedding) ** 2).sum(-1).mean()
    bias = float(loss.mean() / kl.mean() - 1)
    logits, hidden = _share(squares[0], size_logits), _share(squares[1], size_hidden)
    return Errors(bias, 0.0, 0.0, logits, 0.0, 0.0, hidden, 0.0, 0.0)


def full_errors(setting: Setting) -> Errors:
    stored = rounded(setting.teacher).log_softmax(-1)
    return fixed_errors(setting, (stored.exp() * (stored - setting.student)).sum(-1), stored.exp())


def topk_errors(setting: Setting, topk: int, bucket: bool) -> Errors:
    """The k likeliest with all others in one bucket, or cut off and scaled to sum to one."""
    values, ids = setting.teacher.topk(topk, -1)
    rest = 1 - values.exp().sum(-1, keepdim=True).clamp_max(1)
    kept = rounded(values).exp()
    kept = kept / (kept.sum(-1, keepdim=True) + (rest if bucket else 0))
    if not bucket:
        student = setting.student.gather(-1, ids)
        target = torch.zeros_like(setting.teacher).scatter_(-1, ids, kept)
        return fixed_errors(setting, (kept * (kept.log() - student)).sum(-1), target)
    others = setting.student.exp().scatter_(-1, ids, 0.0)
    share = rest / others.sum(-1, keepdim=True).clamp_min(1e-30)
    return fixed_errors(setting, topk_loss(setting, topk), (others * share).scatter_(-1, ids, kept))


def topk_loss(setting: Setting, topk: int) -> Tensor:
    """Forward KL [tokens] from the k likeliest and the bucket, as `distill` computes it."""
    values, ids = setting.teacher.topk(topk, -1)
    rest = 1 - values.exp().sum(-1).clamp_max(1)
    total = (rounded(values).exp().sum(-1) + rest).log()
    target = TargetBatch(ids, rounded(values) - total.unsqueeze(-1), rest / total.exp())
    losses, _ = token_losses(setting.student, target)
    return losses
