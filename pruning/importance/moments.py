"""First and second moments of activations, which some options of a cut need."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.families.table import family_of
from pruning.importance.calibration import left_as_found, run_over
from pruning.importance.reductions import RunningSum
from pruning.importance.width import layers_of


@dataclass(frozen=True)
class Moments:
    """Means over the tokens of a calibration set, fp64."""

    mean_squares: dict[str, Tensor]
    """Norm weight by name -> [hidden], the square of each channel that enters the norm; about the
    token's mean for a norm that takes it off."""
    heads: Tensor
    """[layers, heads * head_dim], what enters the attention's output projection."""
    ffn: dict[int, Tensor]
    """Dense layer -> [ffn], what enters its output projection."""


def measure_moments(model: nn.Module, batches: Iterable[Tensor]) -> Moments:
    """The moments of a Hugging Face causal LM on `batches` of token ids [batch, sequence].

    Raises:
        PruningError: There are no batches.
    """
    config: Any = model.config
    family = family_of(config)
    squares = {tensor.name: RunningSum() for tensor in family.norm_weights(config)}
    heads = [RunningSum() for _ in layers_of(model)]
    ffn = {i: RunningSum() for i in range(len(heads)) if not family.is_sparse(config, i)}
    handles = []
    for name, total in squares.items():
        norm = model.get_submodule(name.removesuffix(".weight"))
        handles.append(norm.register_forward_pre_hook(_square_hook(total)))
    for index, layer in enumerate(layers_of(model)):
        outputs = [(family.attention_output, heads[index])]
        outputs += [(family.ffn_output, ffn[index])] if index in ffn else []
        for module, total in outputs:
            handles.append(layer.get_submodule(module).register_forward_pre_hook(_hook(total)))
    with left_as_found(model):
        try:
            run_over(model, batches)
        finally:
            for handle in handles:
                handle.remove()
    return Moments(
        mean_squares={name: total.mean.cpu() for name, total in squares.items()},
        heads=torch.stack([total.mean.cpu() for total in heads]),
        ffn={layer: total.mean.cpu() for layer, total in ffn.items()},
    )


def _hook(total: RunningSum) -> Any:
    return lambda module, inputs: total.add(inputs[0].flatten(0, -2))


def _square_hook(total: RunningSum) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].float()
        if isinstance(module, nn.LayerNorm):
            values = values - values.mean(-1, keepdim=True)
        total.add(values.square().flatten(0, -2))

    return hook
