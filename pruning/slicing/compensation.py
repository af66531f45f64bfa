"""Optional corrections of a sliced student (norm rescaling, bias compensation, head merging).

docs/pruning.md has what each did on a real model; only the rescale is on by default.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.checkpoint import Checkpoint
from pruning.families.shapes import architecture_of, layers_alike
from pruning.families.table import family_of, head_dim_of
from pruning.families.words import Rescale, TensorSpec
from pruning.importance.moments import Moments
from pruning.slicing.edits import WeightEdits
from pruning.slicing.selection import Slice, count_of, gather, rows_of


def rms_rescale(cut: Slice, mean_squares: Mapping[str, Tensor]) -> WeightEdits:
    """Have every norm give the kept channels their size in the teacher.

    A norm divides by the root mean square over all channels; over the kept ones alone that is
    another number. Its weight is multiplied by the ratio that the calibration text shows,
    sqrt(share of the mean squares in the kept channels * c / c') of c channels with c' kept: one
    factor, or one per group where a norm is over groups of channels.

    Args:
        cut: The student.
        mean_squares: Those of `Moments`.
    """
    family = family_of(cut.teacher)
    names = {source.name: name for name, source in cut.tensors()}
    scales = {}
    for tensor in family.norm_weights(cut.teacher):
        if tensor.name not in names or tensor.name not in mean_squares:
            continue
        groups = ""
        if tensor.layer is not None:
            groups = family.spanning_norms.get(family.name_in_layer(tensor), "")
        factor = _factor(cut, tensor, mean_squares[tensor.name], groups=groups)
        scales[names[tensor.name]] = Rescale(factor, family.offset_of(tensor))
    return WeightEdits(scales=scales)


def _factor(cut: Slice, tensor: TensorSpec, squares: Tensor, *, groups: str) -> float | Tensor:
    """Of a norm over all channels, or [kept channels] of one over groups of them, as many as
    `groups` counts."""
    every = torch.arange(len(squares))
    kept = gather(every, cut.selection(tensor))
    if not groups:
        return _ratio(squares, kept)
    width = len(squares) // int(getattr(cut.teacher_sizes, groups))
    inside = kept.unflatten(0, (int(getattr(cut.architecture, groups)), -1))
    factors = []
    for rows in inside:
        first = int(rows[0]) // width * width
        ratio = _ratio(squares[first : first + width], rows - first)
        factors.append(torch.full((len(rows),), ratio))
    return torch.cat(factors)


def _ratio(squares: Tensor, kept: Tensor) -> float:
    share = float(squares[kept].sum() / squares.sum().clamp_min(1e-30))
    return float((share * len(squares) / len(kept)) ** 0.5)


def bias_compensation(teacher: Checkpoint, cut: Slice, *, moments: Moments) -> WeightEdits:
    """Keep what dropped heads and neurons add on average, as biases (FLAP, arXiv 2312.11983).

    Raises:
        PruningError: The stock configuration of the model type has no such biases, or the model is
            a mixture of experts.
    """
    check_options(cut.teacher, merge=False, compensate=True)
    family = family_of(cut.teacher)
    config = _bias_flags(cut.teacher)
    hidden = cut.kept("hidden", None)
    added: dict[str, Tensor] = {}
    with teacher.reading() as reader:
        for index, layer in enumerate(cut.kept_layers):
            for name, (flag, axes) in family.optional_tensors.items():
                if flag in config and not getattr(cut.teacher, flag):
                    source = TensorSpec(family.layer_tensor(layer, name), axes, layer)
                    count = sum(count_of(part) for part in cut.selection(source))
                    added[family.layer_tensor(index, name)] = torch.zeros(count)
            for module, dropped, mean in _dropped_inputs(cut, layer, moments=moments):
                axes = family.layer_axes(cut.teacher, layer)[f"{module}.weight"]
                weight = reader.view(family.layer_tensor(layer, f"{module}.weight"))[:].double()
                weight = weight if axes[0] == "hidden" else weight.T
                shift = weight[:, dropped] @ mean[dropped]
                bias = family.layer_tensor(layer, f"{module}.bias")
                if bias in teacher.placement:
                    shift = shift + reader.view(bias)[...].double()
                added[family.layer_tensor(index, f"{module}.bias")] = shift[hidden]
    return WeightEdits(added=added, config=config)


def _dropped_inputs(
    cut: Slice, layer: int, *, moments: Moments
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(output projection, mask of its inputs that are dropped, their means) of a layer."""
    family, head_dim = family_of(cut.teacher), head_dim_of(cut.teacher)
    heads = rows_of(cut.kept("heads", layer), head_dim)
    means = moments.heads[layer]
    yield family.attention_output, _others(heads, len(means)), means
    neurons = _others(cut.kept("ffn", layer), cut.teacher_sizes.ffn)
    yield family.ffn_output, neurons, moments.ffn[layer]


def check_options(config: PretrainedConfig, *, merge: bool, compensate: bool) -> None:
    """Raises PruningError for options that the model type does not allow, before any work."""
    family = family_of(config)
    if compensate:
        if architecture_of(config).experts:
            raise PruningError("bias compensation is not defined for mixtures of experts")
        if architecture_of(config).ssm_heads:
            raise PruningError("bias compensation is not defined for recurrent layers")
        if not layers_alike(config):
            raise PruningError("bias compensation is not defined where layers differ in kind")
        _bias_flags(config)
    if merge and family.layer_heads is not None:
        raise PruningError(
            f"head merge is not defined for {config.model_type}, whose layers differ in their heads"
        )
    attention = {**family.layer_tensors, **family.attention_tensors}
    queries = [name for name, axes in attention.items() if axes[0] == "heads"]
    if merge and not any(name.endswith("_proj.weight") for name in queries):
        raise PruningError(
            f"head merge needs query rows of their own; {config.model_type} fuses them"
        )


def head_merge(teacher: Checkpoint, cut: Slice) -> WeightEdits:
    """Fold what sets dropped heads apart into kept ones (Minitron, arXiv 2407.14679, section 2.4).

    With K of L heads kept, W_i becomes W_i + (W_i - W_(2K-1-i)) for the last L - K kept heads,
    counted from 0 in the order of importance: the printed formula, its range read so that the
    first dropped head meets the last kept one. For grouped-query attention inside every group and
    for queries only.

    Raises:
        PruningError: Query rows are fused with others.
    """
    check_options(cut.teacher, merge=True, compensate=False)
    family, whole = family_of(cut.teacher), cut.teacher_sizes
    axes_merged = {"heads", "kv_heads"} if whole.heads == whole.kv_heads else {"heads"}
    edits: dict[str, Callable[[Tensor], Tensor]] = {}
    for index, layer in enumerate(cut.kept_layers):
        for name, axes in family.layer_axes(cut.teacher, layer).items():
            if name.endswith(("_proj.weight", "_proj.bias")) and axes[0] in axes_merged:
                source = TensorSpec(family.layer_tensor(layer, name), axes, layer)
                edits[family.layer_tensor(index, name)] = _merging(teacher, cut, source=source)
    return WeightEdits(edits=edits)


def _merging(teacher: Checkpoint, cut: Slice, *, source: TensorSpec) -> Callable[[Tensor], Tensor]:
    def edit(kept: Tensor) -> Tensor:
        merged = kept.clone()
        head_dim = head_dim_of(cut.teacher)
        assert source.layer is not None
        with teacher.reading() as reader:
            for head, dropped in _mirrored(cut, source.layer):
                rows = slice(dropped * head_dim, (dropped + 1) * head_dim)
                other = gather(reader.view(source.name), [rows, *cut.selection(source)[1:]])
                own = slice(head * head_dim, (head + 1) * head_dim)
                merged[own] = 2 * kept[own] - other
        return merged

    return edit


def _mirrored(cut: Slice, layer: int) -> Iterator[tuple[int, int]]:
    """(head of the student, teacher's head that is dropped) of every pair that is merged."""
    sizes, student = cut.teacher_sizes, cut.architecture
    all_heads = cut.ordering.heads[layer]
    if sizes.heads == sizes.kv_heads:
        groups, kept = all_heads[None], student.heads
    else:
        groups = all_heads.unflatten(0, (sizes.kv_heads, -1))[: student.kv_heads]
        kept = student.heads // student.kv_heads
    for number, group in enumerate(groups.tolist()):
        for offset in range(min(kept, len(group) - kept)):
            yield number * kept + kept - 1 - offset, group[kept + offset]


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
