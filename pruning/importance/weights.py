"""Scores from the weights alone, read from the checkpoint tensor by tensor."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.checkpoint import Checkpoint
from pruning.families.shapes import architecture_of, axis_units
from pruning.families.spec import ORDERED, TensorSpec
from pruning.families.table import family_of
from pruning.importance.width import layers_of


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


def _parts(tensor: TensorSpec, config: PretrainedConfig) -> Iterator[tuple[str, int, int, int]]:
    """(axis, dimension, first row, rows per unit) wherever a scored axis lies in a tensor."""
    sizes, units = architecture_of(config), axis_units(config)
    for dim, joined in enumerate(tensor.axes):
        start = 0
        for axis in joined.split("+"):
            counted = ORDERED.get(axis)
            if counted in SCORED:
                yield counted, dim, start, units[axis]
            start += units[axis] * (getattr(sizes, counted) if counted else 1)


def output_norms(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Norms of what each unit adds to the residual stream: columns of the output projections.

    "heads" [layers, heads], "ffn" [layers, ffn], "expert_ffn" [layers, experts, expert_ffn].
    """
    family = family_of(checkpoint.config)
    with checkpoint.reading() as reader:

        def weight(layer: int, name: str, expert: int | None) -> Tensor:
            full = family.layer_tensor(layer, name).replace("{expert}", str(expert))
            values: Tensor = reader.view(full)[:]
            return values

        return _output_norms(checkpoint.config, weight)


def output_norms_of(model: nn.Module) -> dict[str, Tensor]:
    """As `output_norms`, from a loaded model.

    Raises PruningError where its weights are not in memory; the checkpoint has them then.
    """
    config: Any = model.config
    family, layers = family_of(config), layers_of(model)

    def weight(layer: int, name: str, expert: int | None) -> Tensor:
        module = name.removesuffix(".weight") if expert is None else family.experts_module
        projection: Any = layers[layer].get_submodule(module)
        values: Tensor = projection.weight if expert is None else projection.down_proj[expert]
        if values.is_meta:
            raise PruningError(
                "the score reads weights that are on disk; give the model's checkpoint"
            )
        return values.detach()

    return _output_norms(config, weight)


def _output_norms(
    config: PretrainedConfig, weight: Callable[[int, str, int | None], Tensor]
) -> dict[str, Tensor]:
    """From `weight(layer, name in the layer, expert or None)`."""
    family, sizes, units = family_of(config), architecture_of(config), axis_units(config)
    norms = {
        "heads": torch.zeros(sizes.layers, sizes.heads),
        "ffn": torch.zeros(sizes.layers, sizes.ffn),
        "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
    }
    outputs = {f"{family.attention_output}.weight", f"{family.ffn_output}.weight"}
    outputs.add(family.expert_output)
    for layer in range(sizes.layers):
        for name, axes in family.layer_axes(config, layer).items():
            if name not in outputs:
                continue
            axis = next(axis for axis in axes if axis != "hidden")
            for expert in range(sizes.experts) if "{expert}" in name else (None,):
                squares = weight(layer, name, expert).float().square().sum(axes.index("hidden"))
                columns = squares.unflatten(0, (-1, units[axis])).sum(-1).sqrt().cpu()
                norms[axis][(layer,) if expert is None else (layer, expert)] = columns
    return norms
