"""Fused head: from last hidden states to the loss without ever holding all logits.

Logits of [batch, sequence, vocab] are the largest tensor of a distillation step. They are made here
for some tokens at a time, and so is their gradient, in the forward pass: the backward pass only
hands on what is known by then. Matrix products use large pieces; the loss uses blocks that fit a
processor's cache; the gradient overwrites the logits in place. Compiled, which pays on a GPU, the
loss of a piece and its gradient are one walk over the logits and need no blocks.
"""

import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from distill.loss.head import Head, LogitScale
from distill.loss.supervision import Supervision

LOGGER = logging.getLogger(__name__)
_CPU_PIECE, _OTHER_PIECE = 2**26, 2**28
"""Logits held at once, at most (128 and 512 MB in bf16), though never fewer than a token's. Every
piece is added to the gradient of the whole projection once, so that smaller ones cost time."""
_CPU_BLOCK = 2**18
"""Logits that a thread turns into a gradient at a time: 1 MB in fp32."""
_OTHER_BLOCK = 2**25
"""The same of other devices at a time."""
_COMPILED_VOCABULARY = 2**15
"""Least vocabulary for which a GPU's loss is compiled unasked."""
_COMPILER_NOTES = ("\nOnline softmax is disabled", "TensorFloat32 tensor cores")
"""Beginnings of what torch's compiler says of its own choices, and nobody here can act on."""
_SHOWN_REASON = 200
"""Letters of what the compiler says where it fails."""
_AS_IT_IS = LogitScale()
_Walk = Callable[[Tensor, Supervision, LogitScale], tuple[Tensor, Tensor]]


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
        compiled: bool,
    ) -> Tensor:
        compute_dtype = _compute_dtype(hidden)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        by_bias = None if bias is None else torch.zeros_like(bias)
        used = weight.to(compute_dtype)
        added = None if bias is None else bias.to(compute_dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for start, stop in _pieces(len(hidden), weight.shape[0], hidden.device):
                piece = hidden[start:stop].to(compute_dtype)
                gradient = nn.functional.linear(piece, used, added)  # logits, as yet
                known = supervision.piece(start, stop)
                total += _differentiate(
                    gradient, gradient, known, scale=head.scale, compiled=compiled
                )
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
        scaled = [_scaled(known, grads[0]) for known in ctx.saved_tensors]
        return (*scaled, None, None, None)


class _LogitsLoss(torch.autograd.Function):
    """The same of logits [tokens, vocab] that a model has made already."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, supervision: Supervision, compiled: bool) -> Tensor:
        gradient = torch.empty_like(logits)
        total = logits.new_zeros((), dtype=torch.float32)
        for start, stop in _pieces(len(logits), logits.shape[-1], logits.device):
            known = supervision.piece(start, stop)
            total += _differentiate(
                logits[start:stop], gradient[start:stop], known, compiled=compiled
            )
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None


def projected_loss(
    head: Head, hidden: Tensor, supervision: Supervision, *, compiled: bool = False
) -> Tensor:
    """The weighted sum of the loss over hidden states [tokens, hidden], with its gradient."""
    projection: Any = head.projection
    bias = getattr(projection, "bias", None)
    return _apply(_ProjectedLoss, hidden, projection.weight, bias, head, supervision, compiled)


def logits_loss(logits: Tensor, supervision: Supervision, *, compiled: bool = False) -> Tensor:
    """The weighted sum of the loss over logits [tokens, vocab], with its gradient."""
    return _apply(_LogitsLoss, logits, supervision, compiled)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    loss: Tensor = function.apply(*arguments)
    return loss


def _differentiate(
    raw: Tensor,
    gradient: Tensor,
    supervision: Supervision,
    *,
    scale: LogitScale = _AS_IT_IS,
    compiled: bool = False,
) -> Tensor:
    """The loss of a piece; writes its gradient by `raw` [tokens, vocab], which may be its place."""
    compiled = compiled and supervision.on_one_device
    walk = _compiled_walk() if compiled else _walk
    total = raw.new_zeros((), dtype=torch.float32)
    whole = [(0, len(raw))]
    for start, stop in whole if compiled else _blocks(len(raw), raw.shape[-1], raw.device):
        loss, by_raw = walk(raw[start:stop], supervision.slice(start, stop), scale)
        total += loss
        gradient[start:stop] = by_raw
    return total


def _walk(raw: Tensor, supervision: Supervision, scale: LogitScale) -> tuple[Tensor, Tensor]:
    """The loss of some tokens and its gradient by `raw` [tokens, vocab], in fp32."""
    logits = scale.finish(raw)
    loss, by_logits = supervision.loss_and_gradient(logits)
    return loss, scale.pull(by_logits, logits)


def compiling_pays(vocabulary: int, device: torch.device) -> bool:
    """Whether a compiled loss repays the seconds that torch takes to compile it."""
    return device.type == "cuda" and vocabulary >= _COMPILED_VOCABULARY


@cache
def _compiled_walk() -> _Walk:
    """`_walk` in a few kernels, for a number of tokens and of entries that may vary; as it is where
    torch cannot compile here."""
    for note in _COMPILER_NOTES:
        warnings.filterwarnings("ignore", message=note)

    def narrow(raw: Tensor, supervision: Supervision, scale: LogitScale) -> tuple[Tensor, Tensor]:
        loss, by_raw = _walk(raw, supervision, scale)
        return loss, by_raw.to(raw.dtype)

    compiled: _Walk = torch.compile(narrow, dynamic=True)
    works = True

    def walk(raw: Tensor, supervision: Supervision, scale: LogitScale) -> tuple[Tensor, Tensor]:
        nonlocal works
        if works:
            try:
                return compiled(raw, supervision, scale)
            except TorchDynamoException as problem:
                works = False
                reason = " ".join(str(problem).split())[:_SHOWN_REASON]
                LOGGER.info(f"the loss is not compiled, which is slower: {reason}")
        return narrow(raw, supervision, scale)

    return walk


def _pieces(tokens: int, vocabulary: int, device: torch.device) -> list[tuple[int, int]]:
    return _ranges(tokens, piece_elements(device.type) // vocabulary)


def piece_elements(device: str) -> int:
    """Logits of a piece on a type of device, where a token's are no more than that."""
    return _CPU_PIECE if device == "cpu" else _OTHER_PIECE


def _blocks(tokens: int, vocabulary: int, device: torch.device) -> list[tuple[int, int]]:
    cpu = device.type == "cpu"
    elements = _CPU_BLOCK * torch.get_num_threads() if cpu else _OTHER_BLOCK
    return _ranges(tokens, elements // vocabulary)


def _ranges(tokens: int, size: int) -> list[tuple[int, int]]:
    size = max(1, size)
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _scaled(known: Tensor | None, factor: Tensor) -> Tensor | None:
    """A gradient times `factor`, mostly 1, which a GPU is not asked for: that would hold it up."""
    if known is None or (factor.device.type == "cpu" and factor == 1):
        return known
    return known.mul_(factor)


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
