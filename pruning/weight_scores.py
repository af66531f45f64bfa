"""Scores from the weights alone, read from the checkpoint tensor by tensor."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from pruning.architecture import Architecture
from pruning.checkpoint import Checkpoint
from pruning.errors import PruningError
from pruning.families import family_of
from pruning.family import ORDERED
from pruning.family import Tensor as Place
from pruning.observer import layers_of
from pruning.sizes import architecture_of, axis_units


def magnitudes(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """L2 norm, per unit of every axis, of all weights that belong to it (fp32).

    Shapes as in `Importance`. Norm weights and biases count too: they go with the unit.
    """
    sizes = architecture_of(checkpoint.config)
    squares = {
        "hidden": torch.zeros(sizes.hidden),
        "heads": torch.zeros(sizes.layers, sizes.heads),
        "ffn": torch.zeros(sizes.layers, sizes.ffn),
        "experts": torch.zeros(sizes.layers, sizes.experts),
        "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
        "layers": torch.zeros(sizes.layers),
    }
    with checkpoint.reading() as reader:
        for tensor in family_of(checkpoint.config).tensors(checkpoint.config):
            values = reader.view(tensor.name)[:].float().square()
            if tensor.layer is not None:
                squares["layers"][tensor.layer] += values.sum()
            if tensor.expert is not None:
                squares["experts"][tensor.layer, tensor.expert] += values.sum()
            for axis, dim, start, units in _parts(tensor, checkpoint.config):
                others = [d for d in range(values.dim()) if d != dim]
                per_row = values.sum(others) if others else values
                target = squares[axis]
                if axis != "hidden":
                    target = target[tensor.layer]
                if axis == "expert_ffn":
                    target = target[tensor.expert]
                part = per_row[start : start + len(target) * units]
                target += part.unflatten(0, (-1, units)).sum(-1)
    return {axis: values.sqrt() for axis, values in squares.items()}


SCORED = ("hidden", "heads", "ffn", "experts", "expert_ffn")


def _parts(tensor: Place, config: PretrainedConfig) -> Iterator[tuple[str, int, int, int]]:
    """(axis, dimension, first row, rows per unit) wherever a scored axis lies in a tensor."""
    sizes, units = architecture_of(config), axis_units(config)
    for dim, joined in enumerate(tensor.axes):
        start = 0
        for axis in joined.split("+"):
            counted = ORDERED.get(axis)
            if counted in SCORED:
                yield counted, dim, start, units[axis]
            start += units[axis] * (getattr(sizes, counted) if counted else 1)


def output_norms_of(model: nn.Module) -> dict[str, Tensor]:
    """As `output_norms`, from a loaded model.

    Raises PruningError where its weights are not in memory; the checkpoint has them then.
    """
    config: Any = model.config
    family, sizes = family_of(config), architecture_of(config)
    norms = _no_norms(sizes)
    units = axis_units(config)
    for index, layer in enumerate(layers_of(model)):
        axes = family.layer_axes(config, index)
        for module in (family.attention_output, family.ffn_output):
            if f"{module}.weight" not in axes:
                continue
            weight: Any = layer.get_submodule(module).weight
            dims = axes[f"{module}.weight"]
            axis = next(axis for axis in dims if axis != "hidden")
            norms[axis][index] = _columns(weight, dims.index("hidden"), units[axis])
        if family.is_sparse(config, index):
            experts: Any = layer.get_submodule(family.experts_module)
            for expert, weight in enumerate(experts.down_proj):
                norms["expert_ffn"][index, expert] = _columns(weight, 0, 1)
    return norms


def _no_norms(sizes: Architecture) -> dict[str, Tensor]:
    return {
        "heads": torch.zeros(sizes.layers, sizes.heads),
        "ffn": torch.zeros(sizes.layers, sizes.ffn),
        "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
    }


def _columns(weight: Tensor, hidden: int, rows: int) -> Tensor:
    """Norm of each unit's part of an output projection whose dimension `hidden` is the stream."""
    if weight.is_meta:
        raise PruningError("the score reads weights that are on disk; give the model's checkpoint")
    squares = weight.detach().float().square().sum(hidden)
    return squares.unflatten(0, (-1, rows)).sum(-1).sqrt().cpu()


def output_norms(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Norms of what each unit adds to the residual stream: columns of the output projections.

    "heads" [layers, heads], "ffn" [layers, ffn], "expert_ffn" [layers, experts, expert_ffn].
    """
    config = checkpoint.config
    family, sizes = family_of(config), architecture_of(config)
    norms = _no_norms(sizes)
    units = axis_units(config)
    outputs = {f"{family.attention_output}.weight", f"{family.ffn_output}.weight"}
    outputs.add(family.expert_output)
    with checkpoint.reading() as reader:
        for layer in range(sizes.layers):
            for name, axes in family.layer_axes(config, layer).items():
                if name not in outputs:
                    continue
                axis = next(axis for axis in axes if axis != "hidden")
                for expert in range(sizes.experts) if "{expert}" in name else (None,):
                    full = family.layer_tensor(layer, name).replace("{expert}", str(expert))
                    where = (layer,) if expert is None else (layer, expert)
                    weight = reader.view(full)[:]
                    norms[axis][where] = _columns(weight, axes.index("hidden"), units[axis])
    return norms
