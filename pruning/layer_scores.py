"""How much each layer matters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import PruningError
from pruning.observer import layers_of

LEFT_OUT_SCORES = ("logit-mse", "loss", "kl")
"""The layer scores that run the model without each layer."""
LEFT_OUT_SEQUENCES = 64
"""Leaving out costs a pass per layer: it is measured on so many sequences, which rank them."""
LOGIT_BYTES = 128 << 20
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
        self.seen: list[tuple[Tensor, Tensor]] = []
        """Inputs of the layers so far with their norms: all of a batch for spans, else one."""
        self._handles = [
            layer.register_forward_hook(self._hook(index), with_kwargs=True)
            for index, layer in enumerate(layers)
        ]

    def _hook(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
            before = inputs[0] if inputs else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            self._see(index, before.detach(), after.detach())

        return hook

    @torch.no_grad()
    def _see(self, index: int, before: Tensor, after: Tensor) -> None:
        """Both are [batch, sequence, hidden]."""
        if index == 0 or not self.seen:
            self.seen = [(before, _norms(before))]
        elif self.seen[-1][0].data_ptr() != before.data_ptr():  # moved to another device
            self.seen[-1] = before, _norms(before)
        norms = _norms(after)
        first = index + 1 - len(self.seen)
        for place, (start, start_norms) in enumerate(self.seen):
            start, start_norms = start.to(after.device), start_norms.to(after.device)
            dots = (start.float() * after.float()).sum(-1)
            cosine = dots / (start_norms * norms).clamp_min(TINY)
            self.totals[first + place, index] += float((1 - cosine).sum())
        if index == 0:
            self.tokens += norms.numel()
        self.seen = [*self.seen, (after, norms)] if self.spans else [(after, norms)]
        if index == len(self.totals) - 1:
            self.seen = []

    def influence(self) -> Tensor:
        """[layers], the mean over tokens."""
        return (self.totals.diagonal() / self.tokens).float()

    def span_costs(self) -> Tensor:
        """[length, first]: the mean over tokens; infinite where a span would not fit."""
        count = len(self.totals)
        costs = torch.full((count, count), torch.inf)
        costs[0, 0] = 0.0
        for length in range(1, count):
            for first in range(count - length + 1):
                costs[length, first] = self.totals[first, first + length - 1] / self.tokens
        return costs

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)


@torch.no_grad()
def left_out_scores(model: nn.Module, batches: Iterable[Tensor], method: str) -> Tensor:
    """What leaving each layer out does to the output, [layers] in fp32.

    `method` is one of `LEFT_OUT_SCORES`. Every batch [batch, sequence] runs through the model
    once as it is and once without each layer, until `LEFT_OUT_SEQUENCES` are seen.
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
                distance = _distance(whole, without, ids.to(whole.device), method)
                totals[index] += float(distance.sum())
        count += len(few)
    if not count:
        raise PruningError("no calibration sequences: importance needs at least one batch")
    return (totals / count).float()


def at_once(model: Any, length: int) -> int:
    """Sequences of `length` whose logits stay below `LOGIT_BYTES`; at least one."""
    return max(1, LOGIT_BYTES // (4 * length * int(model.config.vocab_size)))


def _distance(whole: Tensor, without: Tensor, ids: Tensor, method: str) -> Tensor:
    """Per sequence, from logits [batch, sequence, vocab]."""
    if method == "logit-mse":
        return (whole - without).square().mean((1, 2))
    if method == "kl":
        log_probs = whole.log_softmax(-1)
        kl = log_probs.exp() * (log_probs - without.log_softmax(-1))
        return kl.sum(-1).mean(1)

    def loss(logits: Tensor) -> Tensor:
        flat = logits[:, :-1].flatten(0, 1)
        per_token = nn.functional.cross_entropy(flat, ids[:, 1:].flatten(), reduction="none")
        return per_token.view(len(ids), -1).mean(1)

    return loss(without) - loss(whole)


@contextmanager
def _left_out(layer: Any) -> Iterator[None]:
    own = layer.__dict__.get("forward")

    def forward(hidden_states: Tensor, *inputs: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    layer.forward = forward
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own


def input_device(model: nn.Module) -> torch.device:
    """Where the model wants its token ids; also for one spread over devices or partly on disk."""
    placed = getattr(model, "hf_device_map", None)
    if placed:
        first = next(iter(placed.values()))
        return torch.device("cpu" if first in ("cpu", "disk") else first)
    return next(model.parameters()).device
