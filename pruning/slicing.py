"""The sorted teacher, and students cut out of it.

The sorted teacher is the teacher with hidden channels, FFN neurons and heads permuted: it computes
the same function, and every candidate is a prefix of it. Hidden channels and neurons are prefixes
directly; query heads are a prefix inside each KV group. Cutting is copying slices of a
memory-mapped file.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from pruning.architecture import Architecture
from pruning.checkpoint import Checkpoint
from pruning.errors import PruningError
from pruning.families import (
    Axes,
    architecture_of,
    axis_sizes,
    family_of,
    head_dim_of,
    is_legal,
)
from pruning.ordering import Ordering

ORDERING_FILE = "ordering.safetensors"

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
"""As safetensors writes them."""


def write_sorted_teacher(teacher: Checkpoint, ordering: Ordering, output: Path) -> None:
    """Write the sorted teacher to the directory `output`, one file per file of the teacher."""
    config = teacher.config
    axes_of = {n: (layer, axes) for n, layer, axes in family_of(config).tensors(config)}
    output.mkdir(parents=True, exist_ok=True)
    placement: dict[str, str] = {}
    for file, names in teacher.files().items():
        with safe_open(file, framework="pt") as source:
            tensors = {
                name: _permuted(source.get_tensor(name), *axes_of[name], ordering, config)
                for name in names
                if name in axes_of
            }
        if tensors:
            save_file(tensors, output / file.name, metadata={"format": "pt"})
        placement |= dict.fromkeys(tensors, file.name)
    if set(placement.values()) != {"model.safetensors"}:
        index = {"metadata": {}, "weight_map": placement}
        (output / teacher.index_file.name).write_text(json.dumps(index, indent=2))
    config.save_pretrained(output)
    ordering.save(output / ORDERING_FILE)


def _permuted(
    tensor: Tensor, layer: int | None, axes: Axes, ordering: Ordering, config: PretrainedConfig
) -> Tensor:
    for dim, axis in enumerate(axes):
        if axis != "vocab":
            rows = _source_rows(axis, layer, ordering, head_dim_of(config))
            tensor = tensor.index_select(dim, rows)
    return tensor.contiguous()


def _source_rows(axis: str, layer: int | None, ordering: Ordering, head_dim: int) -> Tensor:
    """Index into the teacher for every place of the sorted teacher along `axis`."""
    if axis == "hidden":
        return ordering.hidden
    assert layer is not None, f"axis {axis} exists only inside layers"
    order: Tensor = getattr(ordering, axis)[layer]
    if axis == "ffn":
        return order
    return (order[:, None] * head_dim + torch.arange(head_dim)).flatten()


def check_architecture(config: PretrainedConfig, architecture: Architecture) -> None:
    """Raises PruningError where `architecture` cannot be cut out of the model."""
    teacher = architecture_of(config)
    if is_legal(config, architecture):
        return
    groups = (
        "as many KV heads as heads"
        if teacher.heads == teacher.kv_heads
        else f"{teacher.kv_heads} KV heads and heads a multiple of them"
    )
    divisible = " that the heads divide" if family_of(config).hidden_divisible_by_heads else ""
    raise PruningError(
        f"{architecture} cannot be cut out of {teacher}: each size must be between 1 and the "
        f"teacher's, with {groups}, and a hidden size{divisible}"
    )


def student_config(
    config: PretrainedConfig, architecture: Architecture, kept_layers: list[int]
) -> PretrainedConfig:
    """The teacher's configuration with the student's sizes; head_dim is always written."""
    values = config.to_dict()
    for name in family_of(config).per_layer_fields:
        if isinstance(values.get(name), list):
            values[name] = [values[name][layer] for layer in kept_layers]
    values |= {
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "intermediate_size": architecture.ffn,
        "head_dim": head_dim_of(config),
    }
    if "attention_dropout" in values:
        values["attention_dropout"] = 0.0  # a student learns from soft targets, and exactly so
    return type(config).from_dict(values)


def cut_tensors(
    sorted_teacher: Checkpoint, architecture: Architecture, kept_layers: list[int]
) -> dict[str, Tensor]:
    """The student's tensors by their names in the student; only their bytes are read.

    They may be strided views of the sorted teacher's file: copy before changing them.
    """
    config = sorted_teacher.config
    check_architecture(config, architecture)
    family = family_of(config)
    wanted = [(name, name, axes) for name, axes in family.outer_axes(config).items()]
    for place, layer in enumerate(kept_layers):
        for name, axes in family.layer_axes(config).items():
            source, target = family.layer_tensor(layer, name), family.layer_tensor(place, name)
            wanted.append((source, target, axes))
    tensors: dict[str, Tensor] = {}
    for file, names in sorted_teacher.files().items():
        held = set(names)
        with safe_open(file, framework="pt") as opened:
            for source, target, axes in wanted:
                if source in held:
                    view = opened.get_slice(source)
                    tensors[target] = _slice(view, axes, config, architecture)
    return tensors


def _slice(view: Any, axes: Axes, config: PretrainedConfig, architecture: Architecture) -> Tensor:
    """A student's part of one sorted tensor; `view` reads from the file what it is asked for."""
    sizes = axis_sizes(config, architecture)
    teacher = architecture_of(config)
    head_dim = head_dim_of(config)
    group_rows = teacher.heads // teacher.kv_heads * head_dim
    kept_rows = architecture.heads // architecture.kv_heads * head_dim
    if "heads" not in axes or group_rows == kept_rows:
        return view[tuple(slice(0, sizes[axis]) for axis in axes)]
    dim = axes.index("heads")
    parts = []
    for group in range(architecture.kv_heads):
        start = group * group_rows
        where = [slice(0, sizes[axis]) for axis in axes]
        where[dim] = slice(start, start + kept_rows)
        parts.append(view[tuple(where)])
    return torch.cat(parts, dim)


def write_student(
    sorted_teacher: Checkpoint, architecture: Architecture, kept_layers: list[int], output: Path
) -> None:
    """Cut a student and write it as an ordinary checkpoint to the directory `output`."""
    tensors = cut_tensors(sorted_teacher, architecture, kept_layers)
    output.mkdir(parents=True, exist_ok=True)
    _write_tensors(tensors, output / "model.safetensors")
    student_config(sorted_teacher.config, architecture, kept_layers).save_pretrained(output)


def _write_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """Write a safetensors file of views one at a time.

    `safetensors.torch.save_file` wants every tensor contiguous in memory at once, which takes the
    student's size in memory and half as long again.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # keeps alignment
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPE_NAMES:
            raise PruningError(f"{name} is {tensor.dtype}; save the model in bf16 or fp32 first")
        start, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            target.write(tensors[name].contiguous().view(torch.uint8).numpy().data)


def cut_student(
    sorted_teacher: Checkpoint, architecture: Architecture, kept_layers: list[int]
) -> PreTrainedModel:
    """Cut a student and return it as a stock model in fp32, ready to be trained."""
    tensors = cut_tensors(sorted_teacher, architecture, kept_layers)
    config = student_config(sorted_teacher.config, architecture, kept_layers)
    if config.tie_word_embeddings:
        family = family_of(config)
        tensors[family.output_head[0]] = tensors[next(iter(family.model_tensors))]
    with no_init_weights():  # every tensor is copied in below; the global RNG is left alone
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.tie_weights()
    model.load_state_dict(tensors)
    return model
