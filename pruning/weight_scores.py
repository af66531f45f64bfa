"""Scores from the weights alone, read from the checkpoint tensor by tensor."""

import torch
from torch import Tensor

from pruning.checkpoint import Checkpoint
from pruning.families import family_of
from pruning.family import ORDERED
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
    units = axis_units(checkpoint.config)
    with checkpoint.reading() as reader:
        for tensor in family_of(checkpoint.config).tensors(checkpoint.config):
            values = reader.view(tensor.name)[:].float().square()
            if tensor.layer is not None:
                squares["layers"][tensor.layer] += values.sum()
            if tensor.expert is not None:
                squares["experts"][tensor.layer, tensor.expert] += values.sum()
            for dim, joined in enumerate(tensor.axes):
                per_row = values.sum([d for d in range(values.dim()) if d != dim])
                start = 0
                for axis in joined.split("+"):
                    length = units[axis]
                    if axis in ORDERED:
                        length *= getattr(sizes, ORDERED[axis])
                    part = per_row[start : start + length]
                    start += length
                    name = ORDERED.get(axis)
                    if name not in squares:
                        continue
                    target = squares[name]
                    if name != "hidden":
                        target = target[tensor.layer]
                    if name == "expert_ffn":
                        target = target[tensor.expert]
                    target += part.unflatten(0, (-1, units[axis])).sum(-1)
    return {axis: values.sqrt() for axis, values in squares.items()}


def output_norms(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Norms of what each unit adds to the residual stream: columns of the output projections.

    "heads" [layers, heads], "ffn" [layers, ffn], "expert_ffn" [layers, experts, expert_ffn].
    """
    config = checkpoint.config
    family, sizes = family_of(config), architecture_of(config)
    norms = {
        "heads": torch.zeros(sizes.layers, sizes.heads),
        "ffn": torch.zeros(sizes.layers, sizes.ffn),
        "expert_ffn": torch.zeros(sizes.layers, sizes.experts, sizes.expert_ffn),
    }
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
                    squares = reader.view(full)[:].float().square().sum(axes.index("hidden"))
                    columns = squares.unflatten(0, (-1, units[axis])).sum(-1).sqrt()
                    where = (layer,) if expert is None else (layer, expert)
                    norms[axis][where] = columns
    return norms
