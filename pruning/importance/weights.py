"""Scores from the weights alone, read from the checkpoint tensor by tensor."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.shapes import architecture_of, axis_rows, places_of
from pruning.families.table import family_of
from pruning.families.words import TensorSpec
from pruning.importance.calibration import layers_of


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
        "shared_ffn": torch.zeros(sizes.layers, sizes.shared_ffn),
        "expert_latent": torch.zeros(sizes.layers, sizes.expert_latent),
        "ssm_heads": torch.zeros(sizes.layers, sizes.ssm_heads),
        "ssm_head_dim": torch.zeros(sizes.layers, sizes.ssm_heads, sizes.ssm_head_dim),
        "ssm_state": torch.zeros(sizes.layers, sizes.ssm_groups, sizes.ssm_state),
        "layers": torch.zeros(sizes.layers),
    }
    with checkpoint.reading() as reader:
        for tensor, values in _by_expert(checkpoint.config, reader):
            if tensor.layer is not None:
                squares["layers"][tensor.layer] += values.sum()
            if tensor.expert is not None:
                squares["experts"][tensor.layer, tensor.expert] += values.sum()
            for axis, dim, places, units in axis_parts(tensor, checkpoint.config):
                others = [d for d in range(values.dim()) if d != dim]
                per_row = values.sum(others) if others else values
                target = squares[axis]
                if axis != "hidden":
                    target = target[tensor.layer]
                if axis == "expert_ffn":
                    target = target[tensor.expert]
                target += per_row[places].view(*target.shape, units).sum(-1)
    return {axis: values.sqrt() for axis, values in squares.items()}


def _by_expert(config: PretrainedConfig, reader: Reader) -> Iterator[tuple[TensorSpec, Tensor]]:
    """Every tensor and its squares (fp32); those of all experts expert by expert."""
    family = family_of(config)
    for tensor in family.tensors(config):
        squares = reader.view(tensor.name)[...].float().square()
        stacked = tensor.layer is not None and tensor.axes[:1] == ("experts",)
        if stacked and family.of_experts(family.name_in_layer(tensor), tensor.axes):
            for expert, values in enumerate(squares):
                yield replace(tensor, axes=tensor.axes[1:], expert=expert), values
        else:
            yield tensor, squares


SCORED = (
    "hidden",
    "heads",
    "ffn",
    "experts",
    "expert_ffn",
    "shared_ffn",
    "expert_latent",
    "ssm_heads",
)


def axis_parts(
    tensor: TensorSpec, config: PretrainedConfig
) -> Iterator[tuple[str, int, Tensor, int]]:
    """(axis, dimension, its rows, rows per unit) wherever a scored axis lies in a tensor."""
    sizes, every = architecture_of(config), axis_rows(config)
    for dim, joined in enumerate(tensor.axes):
        for axis, places in places_of(sizes, joined, rows=every):
            if axis.size in SCORED:
                units = getattr(sizes, axis.within) if axis.within else axis.rows
                yield axis.size, dim, places, units
            if axis.within:
                yield axis.within, dim, places, 1


RESIDUAL = ("hidden", "expert_latent")
"""Sizes that outputs are added to: of experts with a latent space that."""


def output_norms(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Norms of what each unit adds to the residual stream: columns of the output projections.

    "heads" [layers, heads], "ffn" [layers, ffn], "expert_ffn" [layers, experts, expert_ffn],
    "shared_ffn" [layers, shared_ffn], "ssm_heads" [layers, ssm_heads] and "ssm_head_dim" [layers,
    ssm_heads, ssm_head_dim].
    """
    family = family_of(checkpoint.config)
    with checkpoint.reading() as reader:

        def weight(layer: int, name: str, expert: int | None) -> Tensor:
            full = family.layer_tensor(layer, name)
            if expert is None or "{expert}" in name:
                values: Tensor = reader.view(full.replace("{expert}", str(expert)))[...]
                return values
            one: Tensor = reader.view(full)[expert]
            return one

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
    family, sizes, every = family_of(config), architecture_of(config), axis_rows(config)
    norms = {
        "heads": torch.zeros(sizes.layers, sizes.heads),
        "ffn": torch.zeros(sizes.layers, sizes.ffn),
        "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
        "shared_ffn": torch.zeros(sizes.layers, sizes.shared_ffn),
        "ssm_heads": torch.zeros(sizes.layers, sizes.ssm_heads),
        "ssm_head_dim": torch.zeros(sizes.layers, sizes.ssm_heads, sizes.ssm_head_dim),
    }
    modules = [family.attention_output, family.ffn_output, family.shared_output]
    modules += [family.recurrence.output] if family.recurrence else []
    outputs = {*(f"{module}.weight" for module in modules), family.expert_output}
    for layer in range(sizes.layers):
        for name, axes in family.layer_axes(config, layer).items():
            if name not in outputs:
                continue
            axes = axes[1:] if axes[0] == "experts" else axes
            read, added = (1, 0) if every[axes[0]].size in RESIDUAL else (0, 1)
            axis = every[axes[read]]
            for expert in range(sizes.experts) if name == family.expert_output else (None,):
                place = (layer,) if expert is None else (layer, expert)
                squares = weight(layer, name, expert).float().square().sum(added).cpu()
                target = norms[axis.size][place]
                target.copy_(squares.unflatten(0, (len(target), -1)).sum(-1).sqrt())
                if axis.within:
                    norms[axis.within][place].copy_(
                        squares.view_as(norms[axis.within][place]).sqrt()
                    )
    return norms
