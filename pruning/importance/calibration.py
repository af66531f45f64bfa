"""Passes of a model over calibration text, which leave it as it was."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.table import family_of

LOGIT_BYTES = 128 << 20
"""Logits in fp32 that a pass makes at once, at most."""


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a Hugging Face causal LM."""
    config: PretrainedConfig = model.config  # type: ignore[assignment]
    prefix = family_of(config).layers_module
    return [model.get_submodule(f"{prefix}.{i}") for i in range(config.num_hidden_layers)]


def repeatable(batches: Iterable[Tensor]) -> Iterable[Tensor]:
    """The same batches for several passes; token ids are small enough to be kept."""
    return list(batches) if isinstance(batches, Iterator) else batches


def run_over(model: nn.Module, batches: Iterable[Tensor], *, gradients: bool = False) -> None:
    """Forward passes and, for scores that need them, backward ones of the summed loss.

    Args:
        model: A Hugging Face causal LM.
        batches: Token ids [batch, sequence].
        gradients: Whether there are backward passes.

    Raises:
        PruningError: There are no batches.
    """
    backbone: Any = model.base_model
    device = input_device(model)
    seen = False
    with torch.set_grad_enabled(gradients):
        for batch in batches:
            seen = True
            ids = batch.to(device)
            if not gradients:
                backbone(input_ids=ids, use_cache=False)
                continue
            for few in ids.split(at_once(model, ids.shape[1])):
                _backward(model, few)
    if not seen:
        raise PruningError("no calibration sequences: importance needs at least one batch")


def run_hooked(model: nn.Module, batches: Iterable[Tensor], *, handles: Iterable[Any]) -> None:
    """As `run_over`, of a model with hooks whose `handles` are removed afterwards; the model is as
    it was found."""
    with left_as_found(model):
        try:
            run_over(model, batches)
        finally:
            for handle in handles:
                handle.remove()


def _backward(model: nn.Module, ids: Tensor) -> None:
    """Gradients of the summed loss on [batch, sequence], at every activation."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    # Not by `inputs_embeds`: some types look up a token in more than one table.
    handle = embed.register_forward_hook(lambda m, i, output: output.detach().requires_grad_())
    try:
        next_token_losses(model(input_ids=ids, use_cache=False).logits, ids).sum().backward()
    finally:
        handle.remove()


def next_token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy per token in fp32, [batch, sequence - 1].

    Args:
        logits: [batch, sequence, vocab].
        ids: Token ids [batch, sequence].
    """
    following = ids[:, 1:].flatten().to(logits.device)
    flat = logits[:, :-1].flatten(0, 1).float()
    losses = nn.functional.cross_entropy(flat, following, reduction="none")
    return losses.view(ids[:, 1:].shape)


def at_once(model: Any, length: int) -> int:
    """Sequences of `length` whose logits stay below `LOGIT_BYTES`; at least one."""
    return max(1, LOGIT_BYTES // (4 * length * int(model.config.vocab_size)))


def input_device(model: nn.Module) -> torch.device:
    """Where the model wants its token ids; also for one spread over devices or partly on disk."""
    placed = getattr(model, "hf_device_map", None)
    if placed:
        first = next(iter(placed.values()))
        return torch.device("cpu" if first in ("cpu", "disk") else first)
    return next(model.parameters()).device


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen weights for a while."""
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(True)
