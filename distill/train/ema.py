"""Exponential moving average of the weights of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from distill.backend.parallel import to_local


class WeightAverage:
    """Moving average of all parameters of a model, sharded as they are."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1.

        Early steps weigh more, so that the start is forgotten: at most (1 + step) / (10 + step) is
        kept.
        """
        kept = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            to_local(value).lerp_(to_local(self.parameters[name]), 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the average as its weights, for as long as the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.values.items():
            mine, theirs = to_local(value), to_local(self.parameters[name])
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)
