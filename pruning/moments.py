"""First and second moments of activations, which some options of a cut need."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.families import family_of
from pruning.importance import left_as_found, run_over
from pruning.observer import layers_of


@dataclass(frozen=True)
class Moments:
    """Means over the tokens of a calibration set, fp64."""

    energies: dict[str, Tensor]
    """Norm weight by name -> [hidden], the square of each channel that enters the norm; about the
    token's mean for a norm that takes it off."""
    heads: Tensor
    """[layers, heads * head_dim], what enters the attention's output projection."""
    ffn: dict[int, Tensor]
    """Dense layer -> [ffn], what enters its output projection."""


class _Mean:
    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.tokens = 0

    def add(self, values: Tensor) -> None:
        """`values` is [batch, sequence, channels]."""
        sums = values.flatten(0, -2).double().sum(0)
        self.total = sums if self.total is None else self.total.add_(sums)
        self.tokens += values[..., 0].numel()

    def value(self) -> Tensor:
        assert self.total is not None, "no batch was seen"
        return (self.total / self.tokens).cpu()


def measure_moments(model: nn.Module, batches: Iterable[Tensor]) -> Moments:
    """The moments of a Hugging Face causal LM on `batches` of token ids [batch, sequence]."""
    config: Any = model.config
    family = family_of(config)
    energies = {tensor.name: _Mean() for tensor in family.norm_weights(config)}
    heads = [_Mean() for _ in layers_of(model)]
    ffn = {i: _Mean() for i in range(len(heads)) if not family.is_sparse(config, i)}
    handles = []
    for name, mean in energies.items():
        norm = model.get_submodule(name.removesuffix(".weight"))
        handles.append(norm.register_forward_pre_hook(_energy(mean)))
    for index, layer in enumerate(layers_of(model)):
        places = [(family.attention_output, heads[index])]
        places += [(family.ffn_output, ffn[index])] if index in ffn else []
        for place, mean in places:
            handles.append(layer.get_submodule(place).register_forward_pre_hook(_value(mean)))
    with left_as_found(model):
        try:
            run_over(model, batches)
        finally:
            for handle in handles:
                handle.remove()
    return Moments(
        energies={name: mean.value() for name, mean in energies.items()},
        heads=torch.stack([mean.value() for mean in heads]),
        ffn={layer: mean.value() for layer, mean in ffn.items()},
    )


def _value(mean: _Mean) -> Any:
    return lambda module, inputs: mean.add(inputs[0])


def _energy(mean: _Mean) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float()
        if isinstance(module, nn.LayerNorm):
            values = values - values.mean(-1, keepdim=True)
        mean.add(values.square())

    return hook
