"""What a cut may do beyond copying slices: each gives the changes that `write_student` applies.

docs/pruning.md has what each did on a real model; only the rescale is on by default.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig

from pruning.checkpoint import Checkpoint
from pruning.errors import PruningError
from pruning.families import family_of, head_dim_of
from pruning.family import Rescale
from pruning.family import Tensor as TensorPlace
from pruning.moments import Moments
from pruning.rows import Cut, count_of, rows_of, take
from pruning.sizes import architecture_of
from pruning.slicing import Changes


def rms_rescale(cut: Cut, kept_layers: list[int], energies: Mapping[str, Tensor]) -> Changes:
    """Have every norm over the hidden channels give the kept ones their size in the teacher.

    A norm divides by the root mean square over all channels; over the kept ones alone that is
    another number. Its weight is multiplied by the ratio that the calibration text shows,
    sqrt(share of the energy in the kept channels * h / h'). `energies` are those of `Moments`.
    """
    family = family_of(cut.teacher)
    kept = cut.kept("hidden", None)
    scales = {}
    for tensor in family.norm_weights(cut.teacher):
        energy = energies[tensor.name]
        share = float(energy[kept].sum() / energy.sum().clamp_min(1e-30))
        factor = (share * cut.whole.hidden / cut.architecture.hidden) ** 0.5
        name = _name_in_student(tensor, cut, kept_layers)
        if name is not None:
            scales[name] = Rescale(factor, family.norm_offset)
    return Changes(scales=scales)


def bias_compensation(
    teacher: Checkpoint, cut: Cut, kept_layers: list[int], moments: Moments
) -> Changes:
    """Keep what dropped heads and neurons add on average, as biases (FLAP, arXiv 2312.11983).

    Raises PruningError for a model type whose stock configuration has no such biases, and for
    mixtures of experts.
    """
    check_options(cut.teacher, merge=False, compensate=True)
    family, head_dim = family_of(cut.teacher), head_dim_of(cut.teacher)
    config = _bias_flags(cut.teacher)
    added: dict[str, Tensor] = {}
    with teacher.reading() as reader:
        for place, layer in enumerate(kept_layers):
            for name, (flag, axes) in family.optional_tensors.items():
                if flag in config and not getattr(cut.teacher, flag):
                    source = TensorPlace(family.layer_tensor(layer, name), axes, layer)
                    count = sum(count_of(rows) for rows in cut.rows(source))
                    added[family.layer_tensor(place, name)] = torch.zeros(count)
            head_rows = rows_of(cut.kept("heads", layer), head_dim)
            gone_heads = _others(head_rows, moments.heads.shape[1])
            gone_neurons = _others(cut.kept("ffn", layer), cut.whole.ffn)
            for module, gone, mean in (
                (family.attention_output, gone_heads, moments.heads[layer]),
                (family.ffn_output, gone_neurons, moments.ffn[layer]),
            ):
                axes = family.layer_axes(cut.teacher, layer)[f"{module}.weight"]
                weight = reader.view(family.layer_tensor(layer, f"{module}.weight"))[:].double()
                weight = weight if axes[0] == "hidden" else weight.T
                shift = weight[:, gone] @ mean[gone]
                bias = family.layer_tensor(layer, f"{module}.bias")
                if bias in teacher.placement:
                    shift = shift + reader.view(bias)[:].double()
                kept = cut.kept("hidden", None)
                added[family.layer_tensor(place, f"{module}.bias")] = shift[kept]
    return Changes(added=added, config=config)


def check_options(config: PretrainedConfig, merge: bool, compensate: bool) -> None:
    """Raises PruningError for options that the model type does not allow, before any work."""
    family = family_of(config)
    if compensate:
        if architecture_of(config).experts:
            raise PruningError("bias compensation is not defined for mixtures of experts")
        _bias_flags(config)
    queries = [n for n, axes in family.layer_tensors.items() if axes[0] == "heads"]
    if merge and not any(name.endswith("_proj.weight") for name in queries):
        raise PruningError(
            f"head merge needs query rows of their own; {config.model_type} fuses them"
        )


def head_merge(teacher: Checkpoint, cut: Cut, kept_layers: list[int]) -> Changes:
    """Fold what sets dropped heads apart into kept ones (Minitron, arXiv 2407.14679, section 2.4).

    With K of L heads kept, W_i becomes W_i + (W_i - W_(2K-1-i)) for the last L - K kept heads,
    counted from 0 in the order of importance: the printed formula, its range read so that the
    first dropped head meets the last kept one. For grouped-query attention inside every group and
    for queries only. Raises PruningError where query rows are fused with others.
    """
    check_options(cut.teacher, merge=True, compensate=False)
    family, whole = family_of(cut.teacher), cut.whole
    axes_merged = {"heads", "kv_heads"} if whole.heads == whole.kv_heads else {"heads"}
    edits: dict[str, Callable[[Tensor], Tensor]] = {}
    for place, layer in enumerate(kept_layers):
        for name, axes in family.layer_axes(cut.teacher, layer).items():
            if axes[0] in axes_merged and name.endswith(("_proj.weight", "_proj.bias")):
                source = TensorPlace(family.layer_tensor(layer, name), axes, layer)
                edits[family.layer_tensor(place, name)] = _merging(teacher, cut, source)
    return Changes(edits=edits)


def _merging(teacher: Checkpoint, cut: Cut, source: TensorPlace) -> Callable[[Tensor], Tensor]:
    def edit(kept: Tensor) -> Tensor:
        merged = kept.clone()
        head_dim = head_dim_of(cut.teacher)
        assert source.layer is not None
        with teacher.reading() as reader:
            for place, dropped in _mirrored(cut, source.layer):
                rows = slice(dropped * head_dim, (dropped + 1) * head_dim)
                other = take(reader.view(source.name), [rows, *cut.rows(source)[1:]])
                own = slice(place * head_dim, (place + 1) * head_dim)
                merged[own] = 2 * kept[own] - other
        return merged

    return edit


def _mirrored(cut: Cut, layer: int) -> Iterator[tuple[int, int]]:
    """(place in the student, teacher's head that is dropped) of every pair that is merged."""
    sizes, student = cut.whole, cut.architecture
    every = cut.ordering.heads[layer]
    if sizes.heads == sizes.kv_heads:
        groups, kept = every[None], student.heads
    else:
        groups = every.unflatten(0, (sizes.kv_heads, -1))[: student.kv_heads]
        kept = student.heads // student.kv_heads
    for number, group in enumerate(groups.tolist()):
        for offset in range(min(kept, len(group) - kept)):
            yield number * kept + kept - 1 - offset, group[kept + offset]


def _name_in_student(tensor: TensorPlace, cut: Cut, kept_layers: list[int]) -> str | None:
    if tensor.layer is None:
        return tensor.name
    if tensor.layer not in kept_layers:
        return None
    family = family_of(cut.teacher)
    local = tensor.name.removeprefix(family.layer_tensor(tensor.layer, ""))
    return family.layer_tensor(kept_layers.index(tensor.layer), local)


def _bias_flags(config: PretrainedConfig) -> dict[str, bool]:
    """Configuration flags that give both output projections a bias."""
    family = family_of(config)
    flags: dict[str, bool] = {}
    for module in (family.attention_output, family.ffn_output):
        name = f"{module}.bias"
        if name in family.layer_tensors or name in family.dense_tensors:
            continue
        if name not in family.optional_tensors:
            raise PruningError(
                f"bias compensation needs a bias on {module}, which a stock "
                f"{config.model_type} model cannot have"
            )
        flags[family.optional_tensors[name][0]] = True
    return flags


def _others(kept: Tensor, count: int) -> Tensor:
    """Indices below `count` that are not in `kept`, as a mask."""
    others = torch.ones(count, dtype=torch.bool)
    others[kept] = False
    return others
