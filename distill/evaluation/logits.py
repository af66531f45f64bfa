"""Logits of a model on one block of text, and the divergence of two models on it.

Two models that are said to be the same, or a model and the checkpoint that was written of it, are
held against each other with one forward pass each.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.backend.layers import input_device
from distill.backend.precision import autocast

PROOF_TOKENS = 256
"""Tokens of a block that models are held against each other on, at most."""
CHUNK_TOKENS = 32
"""Predictions compared at once, so that large vocabularies take little memory."""


@torch.no_grad()
def logits_on_cpu(
    model: Any,
    ids: Tensor,
    precision: str = "fp32",
    *,
    logits_of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """[batch, sequence, vocab] in fp32 on the CPU, of `ids` [batch, sequence].

    The model may be spread over devices. `logits_of` replaces its own forward pass.
    """
    device = input_device(model)
    run = logits_of or (lambda ids: model(input_ids=ids, use_cache=False).logits)
    model.eval()
    with autocast(device, precision):
        logits = run(ids.to(device))
    return logits.float().cpu()


def answers(
    model: Any, block: NDArray[Any], logits_of: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Logits [tokens, vocab] after each of the first tokens of `block` [sequence].

    The arithmetic is fp32 also where the weights are of less precision, so that rounding does not
    hide a difference; of a model that is spread over devices, it is that of its weights.
    """
    ids = torch.from_numpy(block[None, :PROOF_TOKENS].astype(np.int64))
    with nullcontext() if spread(model) else precise(model):
        return logits_on_cpu(model, ids, logits_of=logits_of)[0]


def spread(model: Any) -> bool:
    """Whether accelerate moves the weights of the model to where they are used."""
    return len(getattr(model, "hf_device_map", None) or {}) > 1


@contextmanager
def precise(model: nn.Module) -> Iterator[None]:
    """Inside, every module computes with its weights in fp32 at least, one module at a time, so
    that the model takes no more memory than it did."""
    kept: dict[nn.Module, dict[str, Tensor]] = {}

    def widen(module: nn.Module, *_: Any) -> None:
        narrow = {n: p.data for n, p in module.named_parameters(recurse=False)}
        kept[module] = narrow
        for name, value in narrow.items():
            dtype = torch.promote_types(value.dtype, torch.float32)
            getattr(module, name).data = value.to(dtype)

    def restore(module: nn.Module, *_: Any) -> None:
        for name, value in kept.pop(module, {}).items():
            getattr(module, name).data = value

    handles = []
    for module in model.modules():
        if any(p.is_floating_point() for p in module.parameters(recurse=False)):
            handles.append(module.register_forward_pre_hook(widen))
            handles.append(module.register_forward_hook(restore, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answers_kl(first: Tensor, second: Tensor) -> float:
    """Forward KL from `first` to `second`, logits [tokens, vocab] each: nats per token, NaN where
    either is not finite."""
    total = 0.0
    for start in range(0, len(first), CHUNK_TOKENS):
        rows = slice(start, start + CHUNK_TOKENS)
        p, q = (logits[rows].double().log_softmax(-1) for logits in (first, second))
        total += float((p.exp() * (p - q)).sum())
    return total / len(first)


def next_token_log_probs(
    model: Any, block: NDArray[Any], logits_of: Callable[[Tensor], Tensor] | None = None
) -> list[float]:
    """Log-probability of each following token of `block` [sequence]: the answers in a form that is
    small enough to be kept beside a result."""
    logits = answers(model, block, logits_of)
    following = torch.from_numpy(block[1 : len(logits)].astype(np.int64))
    log_probs = torch.cat(
        [
            logits[start : start + CHUNK_TOKENS][: len(following) - start].log_softmax(-1)
            for start in range(0, len(following), CHUNK_TOKENS)
        ]
    )
    chosen: Tensor = log_probs.gather(1, following[:, None])[:, 0]
    return chosen.tolist()
