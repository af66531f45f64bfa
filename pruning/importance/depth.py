"""Scores of whole layers: by the residual stream, and by leaving each out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import PruningError
from pruning.importance.calibration import (
    at_once,
    input_device,
    layers_of,
    next_token_losses,
)
from pruning.importance.reductions import Sums

LEFT_OUT_SCORES = ("logit-mse", "loss", "kl")
"""The layer scores that run the model without each layer."""
LEFT_OUT_SEQUENCES = 64
"""Leaving out costs a pass per layer: it is measured on so many sequences, which rank them."""
STREAM_COSTS, STREAM_TOKENS = "stream.costs", "stream.tokens"
LEFT_OUT_COSTS, LEFT_OUT_COUNT = "left_out.costs", "left_out.sequences"
"""Names of sums."""
TINY = torch.finfo(torch.float32).tiny


class StreamObserver:
    """Compares the residual stream before and after layers, in the pass that scores width.

    Block influence (ShortGPT, arXiv 2403.03853) compares a layer's input with its output. With
    `spans`, the input of every layer is compared with the output of every later one, which ranks
    contiguous spans (arXiv 2403.17887).
    """

    def __init__(self, model: nn.Module, spans: bool = False):
        layers = layers_of(model)
        self.spans = spans
        self.totals = torch.zeros(len(layers), len(layers), dtype=torch.float64)
        """1 - cosine summed over tokens, by first and last layer of a span."""
        self.tokens = 0
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer -> its input [batch, sequence, hidden] and the norms of its vectors: with `spans`
        of all layers of a batch so far, else of the present one."""
        self._handles = [
            layer.register_forward_hook(self._hook(index), with_kwargs=True)
            for index, layer in enumerate(layers)
        ]

    def _hook(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
            before = inputs[0] if inputs else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            self._update(index, before.detach(), after.detach())

        return hook

    @torch.no_grad()
    def _update(self, index: int, before: Tensor, after: Tensor) -> None:
        """Compare `after` a layer with the inputs; both are [batch, sequence, hidden]."""
        if index == 0:
            self._inputs = {}
        held = self._inputs.get(index)  # what the layer before gave, unless this is the first
        if held is None or held[0].data_ptr() != before.data_ptr():  # or moved to another device
            self._inputs[index] = before, _norms(before)
        norms = _norms(after)
        for first, (start, start_norms) in self._inputs.items():
            start, start_norms = start.to(after.device), start_norms.to(after.device)
            dots = (start.float() * after.float()).sum(-1)
            cosine = dots / (start_norms * norms).clamp_min(TINY)
            self.totals[first, index] += float((1 - cosine).sum())
        if index == 0:
            self.tokens += norms.numel()
        if not self.spans or index == len(self.totals) - 1:
            self._inputs = {}
        if index < len(self.totals) - 1:
            self._inputs[index + 1] = after, norms

    def sums(self) -> Sums:
        """Of all that was seen."""
        tokens = torch.tensor(float(self.tokens), dtype=torch.float64)
        return {STREAM_COSTS: self.totals, STREAM_TOKENS: tokens}

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def influence(sums: Mapping[str, Tensor]) -> Tensor:
    """[layers], the mean over tokens, of the sums of `StreamObserver`."""
    return (sums[STREAM_COSTS].diagonal() / sums[STREAM_TOKENS]).float()


def span_costs(sums: Mapping[str, Tensor]) -> Tensor:
    """[length, first]: the mean over tokens; infinite where a span would not fit."""
    totals, tokens = sums[STREAM_COSTS], sums[STREAM_TOKENS]
    count = len(totals)
    costs = torch.full((count, count), torch.inf)
    costs[0, 0] = 0.0
    for length in range(1, count):
        for first in range(count - length + 1):
            costs[length, first] = totals[first, first + length - 1] / tokens
    return costs


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)
    return norms


@torch.no_grad()
def left_out_sums(model: nn.Module, batches: Iterable[Tensor], *, method: str) -> Sums:
    """What leaving each layer out does to the output, added up over sequences.

    Every batch runs through the model once as it is and once without each layer, until
    `LEFT_OUT_SEQUENCES` are seen.

    Args:
        model: A Hugging Face causal LM.
        batches: Token ids [batch, sequence].
        method: One of `LEFT_OUT_SCORES`.

    Raises:
        PruningError: There are no batches.
    """
    layers = layers_of(model)
    totals = torch.zeros(len(layers), dtype=torch.float64)
    count = 0
    device = input_device(model)
    for batch in batches:
        if count >= LEFT_OUT_SEQUENCES:
            break
        few = batch[: LEFT_OUT_SEQUENCES - count]
        for ids in few.to(device).split(at_once(model, few.shape[1])):
            whole = model(input_ids=ids, use_cache=False).logits.float()
            for index, layer in enumerate(layers):
                with _left_out(layer):
                    without = model(input_ids=ids, use_cache=False).logits.float()
                distance = _distance(whole, without, ids=ids.to(whole.device), method=method)
                totals[index] += float(distance.sum())
        count += len(few)
    if not count:
        raise PruningError("no calibration sequences: importance needs at least one batch")
    sequences = torch.tensor(float(count), dtype=torch.float64)
    return {LEFT_OUT_COSTS: totals, LEFT_OUT_COUNT: sequences}


def left_out_scores(sums: Mapping[str, Tensor]) -> Tensor:
    """[layers] in fp32, the mean over sequences, of what `left_out_sums` gave."""
    return (sums[LEFT_OUT_COSTS] / sums[LEFT_OUT_COUNT]).float()


def _distance(whole: Tensor, without: Tensor, *, ids: Tensor, method: str) -> Tensor:
    """Per sequence, from logits [batch, sequence, vocab]."""
    if method == "logit-mse":
        return (whole - without).square().mean((1, 2))
    if method == "kl":
        log_probs = whole.log_softmax(-1)
        kl = log_probs.exp() * (log_probs - without.log_softmax(-1))
        return kl.sum(-1).mean(1)
    return next_token_losses(without, ids).mean(1) - next_token_losses(whole, ids).mean(1)


@contextmanager
def _left_out(layer: Any) -> Iterator[None]:
    """Have a layer say what it reads; it still runs, for what else its type returns."""

    def hook(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> Any:
        read = inputs[0] if inputs else kwargs["hidden_states"]
        return (read, *output[1:]) if isinstance(output, tuple) else read

    handle = layer.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
