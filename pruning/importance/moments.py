"""First and second moments of activations, which some options of a cut need."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pruning.families.block import ATTENTION, FFN
from pruning.families.table import family_of
from pruning.importance.calibration import layers_of, run_hooked
from pruning.importance.reductions import COUNT, RunningSum, Sums

NORMS, HEADS, NEURONS = "norms.", "heads.", "ffn."
"""Begin the names of sums of what enters norms and output projections."""


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
    return moments_of(moment_sums(model, batches))


def moments_of(sums: Mapping[str, Tensor]) -> Moments:
    """The moments on all text, of what `moment_sums` gave for its parts together."""
    names = [name for name in sums if not name.endswith(COUNT)]

    def means(kind: str) -> dict[str, Tensor]:
        found = [name.removeprefix(kind) for name in names if name.startswith(kind)]
        return {name: RunningSum.of(sums, kind + name).mean for name in found}

    heads, ffn = means(HEADS), means(NEURONS)
    return Moments(
        mean_squares=means(NORMS),
        heads={int(layer): mean for layer, mean in heads.items()},
        ffn={int(layer): mean for layer, mean in ffn.items()},
    )


def moment_sums(model: nn.Module, batches: Iterable[Tensor]) -> Sums:
    """What `moments_of` takes, of a part of a text. Raises PruningError without batches."""
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
    sums: Sums = {}
    for kind, totals in ((NORMS, squares), (HEADS, heads), (NEURONS, ffn)):
        for key, total in totals.items():
            sums |= total.sums(f"{kind}{key}")
    return sums


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
