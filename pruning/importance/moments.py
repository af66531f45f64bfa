"""First and second moments of activations, which some options of a cut need."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pruning.families.block import ATTENTION, FFN
from pruning.families.table import family_of
from pruning.importance.calibration import layers_of, run_hooked
from pruning.importance.reductions import RunningSum


@dataclass(frozen=True)
class Moments:
    """Means over the tokens of a calibration set, fp64."""

    mean_squares: dict[str, Tensor]
    """Norm weight by name -> [channels], the square of each channel that enters the norm; about the
    token's mean for a norm that takes it off. Of norms over the hidden channels, and of those that
    span others which may be cut."""
    heads: dict[int, Tensor]
    """Layer with attention -> [heads * head_dim], what enters its output projection."""
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
    count = len(layers_of(model))
    heads = {i: RunningSum() for i in range(count) if family.has(ATTENTION, config, i)}
    ffn = {i: RunningSum() for i in range(count) if family.has(FFN, config, i)}
    recurrence = family.recurrence
    gated = recurrence.norm if recurrence and recurrence.norm_gated(config) else ""
    handles = []
    for name, total in squares.items():
        module = family.module_of(name)
        hook = _square_hook(total, gated=gated != "" and module.endswith(f".{gated}"))
        norm = model.get_submodule(module)
        handles.append(norm.register_forward_pre_hook(hook, with_kwargs=True))
    for index, layer in enumerate(layers_of(model)):
        outputs = [(family.attention_output, heads[index])] if index in heads else []
        outputs += [(family.ffn_output, ffn[index])] if index in ffn else []
        for module, total in outputs:
            handles.append(layer.get_submodule(module).register_forward_pre_hook(_hook(total)))
    run_hooked(model, batches, handles=handles)
    return Moments(
        mean_squares={name: total.mean.cpu() for name, total in squares.items()},
        heads={layer: total.mean.cpu() for layer, total in heads.items()},
        ffn={layer: total.mean.cpu() for layer, total in ffn.items()},
    )


def _hook(total: RunningSum) -> Any:
    return lambda module, inputs: total.add(inputs[0].flatten(0, -2))


def _square_hook(total: RunningSum, *, gated: bool) -> Any:
    """`gated`: the norm is over its first input times the SiLU of the second."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
        values = inputs[0].float()
        gate = inputs[1] if len(inputs) > 1 else keywords.get("gate")
        if gated and gate is not None:
            values = values * nn.functional.silu(gate.float())
        if isinstance(module, nn.LayerNorm):
            values = values - values.mean(-1, keepdim=True)
        total.add(values.square().flatten(0, -2))

    return hook
