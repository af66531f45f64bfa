"""The sorted teacher, and students cut out of it or straight out of the teacher.

The sorted teacher is the teacher with hidden channels, FFN neurons, heads and experts permuted: it
computes the same function, and every candidate is a prefix of it. Hidden channels and neurons are
prefixes directly; query heads are a prefix inside each kept KV group. Cutting is copying slices of
memory-mapped files, tensor by tensor.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor as TorchTensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from pruning.architecture import Architecture
from pruning.checkpoint import Checkpoint, Reader
from pruning.config_file import raw_config, write_config
from pruning.errors import PruningError
from pruning.families import family_of, head_dim_of
from pruning.family import Rescale, Tensor
from pruning.loading import quiet
from pruning.ordering import Ordering
from pruning.rows import Cut, count_of, take, take_in_chunks
from pruning.saving import save_tensors
from pruning.sizes import architecture_of, check_architecture, in_order
from pruning.tensor_types import TENSOR_TYPES, TYPE_NAMES
from pruning.writing import Planned, fresh_directory, require_space, write_tensors

ORDERING_FILE = "ordering.safetensors"
ENERGIES_FILE = "energies.safetensors"
CHUNK_BYTES = 32 << 20
DROPOUTS = (
    "attention_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "router_jitter_noise",
)
"""A student learns from soft targets, and exactly so: its configuration has none of these."""


@dataclass(frozen=True)
class Changes:
    """What an option changes in a student beyond the slice, by the student's tensor names."""

    scales: Mapping[str, Rescale] = field(default_factory=dict)
    edits: Mapping[str, Callable[[TorchTensor], TorchTensor]] = field(default_factory=dict)
    """Applied to the whole sliced tensor."""
    added: Mapping[str, TorchTensor] = field(default_factory=dict)
    """Tensors that the teacher does not have, or in place of its own."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Values of the student's configuration."""

    def __or__(self, other: "Changes") -> "Changes":
        """Both, one after the other where they meet on a tensor; scales multiply."""
        both = dict(self.scales)
        for name, scale in other.scales.items():
            factor = both[name].factor if name in both else 1.0
            both[name] = Rescale(factor * scale.factor, scale.offset)
        return Changes(
            scales=both,
            edits={**self.edits, **other.edits},
            added={**self.added, **other.added},
            config={**self.config, **other.config},
        )

    def applied(self, name: str, tensor: TorchTensor) -> TorchTensor:
        """The sliced tensor called `name` in the student, or a piece of one without an edit."""
        if name in self.edits:
            tensor = self.edits[name](tensor)
        if name in self.scales:
            tensor = self.scales[name].applied(tensor)
        return tensor


NO_CHANGES = Changes()


def write_sorted_teacher(
    teacher: Checkpoint,
    ordering: Ordering,
    output: Path,
    energies: Mapping[str, TorchTensor] | None = None,
) -> None:
    """Write the sorted teacher to the new directory `output`, with its ordering beside it.

    With it go the `energies` of its norms (see `pruning.moments`), sorted too, for students that
    are to be rescaled. Raises PruningError where the disk is too small or `output` is not empty.
    """
    whole = architecture_of(teacher.config)
    cut = Cut(teacher.config, ordering, whole)
    with teacher.reading() as reader, fresh_directory(output) as directory:
        planned = _plans(reader, cut, list(range(whole.layers)), NO_CHANGES)
        _write(planned, directory, output)
        write_config(directory, raw_config(teacher.directory), teacher.config)
        ordering.save(directory / ORDERING_FILE)
        if energies is not None:
            in_order = {name: energy[ordering.hidden] for name, energy in energies.items()}
            save_tensors(in_order, directory / ENERGIES_FILE)


def write_student(
    teacher: Checkpoint,
    architecture: Architecture,
    kept_layers: list[int],
    output: Path,
    ordering: Ordering | None = None,
    changes: Changes = NO_CHANGES,
) -> None:
    """Cut a student and write it as an ordinary checkpoint to the new directory `output`.

    Without `ordering`, `teacher` is a sorted teacher. Host memory stays within a few times the
    largest tensor. All tensors are written in the type of most of the teacher's bytes: what loads a
    checkpoint gives it one type anyway. Raises PruningError for an architecture that cannot be cut
    out, where the disk is too small, and where `output` is not empty; an interrupted write leaves
    nothing.
    """
    cut = _cut_of(teacher, architecture, kept_layers, ordering)
    with teacher.reading() as reader, fresh_directory(output) as directory:
        planned = _plans(reader, cut, kept_layers, changes, TYPE_NAMES[teacher.dtype])
        _write(planned, directory, output)
        config = student_config(teacher.config, architecture, kept_layers, changes)
        config.dtype = teacher.dtype
        write_config(directory, raw_config(teacher.directory), config)


def cut_student(
    teacher: Checkpoint,
    architecture: Architecture,
    kept_layers: list[int],
    ordering: Ordering | None = None,
    changes: Changes = NO_CHANGES,
    *,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Cut a student and return it as a stock model in `dtype`, in train mode.

    Training wants fp32 weights; the teacher's own precision is for comparing the two.
    """
    cut = _cut_of(teacher, architecture, kept_layers, ordering)
    tensors: dict[str, TorchTensor] = {}
    with teacher.reading() as reader:
        changes = _compensated(cut, changes)
        for name, source in _pairs(cut, kept_layers):
            tensor = take(reader.view(source.name), cut.rows(source))
            tensors[name] = changes.applied(name, tensor).to(dtype, copy=True)
    tensors |= {name: tensor.to(dtype) for name, tensor in changes.added.items()}
    config = student_config(teacher.config, architecture, kept_layers, changes)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with quiet():
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
        )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise PruningError(
                f"the row {config.model_type} of the table of families does not fit the model that "
                f"transformers builds: {what.replace('_', ' ')} {sorted(map(str, report[what]))[0]}"
            )
    model.train()
    student: PreTrainedModel = model
    return student


def student_config(
    config: PretrainedConfig,
    architecture: Architecture,
    kept_layers: list[int],
    changes: Changes = NO_CHANGES,
) -> PretrainedConfig:
    """The teacher's configuration with the student's sizes; head_dim is always written."""
    family = family_of(config)
    values = config.to_dict()
    for name in family.per_layer_fields:
        if isinstance(values.get(name), list):
            values[name] = [values[name][layer] for layer in kept_layers]
    sizes = architecture.to_dict()
    values |= {name: sizes[axis] for axis, name in family.fields.items() if sizes.get(axis)}
    values |= family.cut_pattern(config, kept_layers)
    if family.has_head_dim:
        values["head_dim"] = head_dim_of(config)
    values |= {name: 0.0 for name in DROPOUTS if name in values}
    values.pop("auto_map", None)  # code beside the teacher that stock models do not need
    return type(config).from_dict(values | dict(changes.config))


def _cut_of(
    teacher: Checkpoint,
    architecture: Architecture,
    kept_layers: list[int],
    ordering: Ordering | None,
) -> Cut:
    config = teacher.config
    check_architecture(config, architecture)
    most = architecture_of(config).layers
    if not in_order(kept_layers, most) or len(kept_layers) != architecture.layers:
        raise PruningError(
            f"the layers to keep are {kept_layers}; {architecture} needs {architecture.layers} "
            f"different ones between 0 and {most - 1}, in order"
        )
    if ordering is None:
        ordering = Ordering.identity(architecture_of(config))
    return Cut(config, ordering, architecture)


def _pairs(cut: Cut, kept_layers: list[int]) -> Iterator[tuple[str, Tensor]]:
    """(name in the student, tensor of the teacher that it is cut out of)."""
    family, config = family_of(cut.teacher), cut.teacher
    for name, axes in family.outer_axes(config).items():
        yield name, Tensor(name, axes)
    for place, layer in enumerate(kept_layers):
        for name, axes in family.layer_axes(config, layer).items():
            source, target = family.layer_tensor(layer, name), family.layer_tensor(place, name)
            if "{expert}" not in name:
                yield target, Tensor(source, axes, layer)
                continue
            experts = cut.ordering.experts[layer][: cut.architecture.experts].tolist()
            for new, old in enumerate(experts):
                old_name = source.replace("{expert}", str(old))
                yield target.replace("{expert}", str(new)), Tensor(old_name, axes, layer, old)


def _plans(
    reader: Reader,
    cut: Cut,
    kept_layers: list[int],
    changes: Changes,
    dtype: str | None = None,
) -> list[Planned]:
    """The student's tensors, all in `dtype` or each in its own type."""
    changes = _compensated(cut, changes)
    planned = []
    for name, source in _pairs(cut, kept_layers):
        if name not in changes.added:
            planned.append(_planned(reader, cut, name, source, changes))
    for name, tensor in changes.added.items():
        planned.append(_in_memory(name, tensor))
    return [_in_type(tensor, dtype) for tensor in planned] if dtype else planned


def _write(planned: list[Planned], directory: Path, output: Path) -> None:
    require_space(output.parent, sum(tensor.bytes for tensor in planned))
    write_tensors(planned, directory)


def _planned(
    reader: Reader,
    cut: Cut,
    name: str,
    source: Tensor,
    changes: Changes,
) -> Planned:
    dtype = reader.dtype(source.name)
    if dtype not in TENSOR_TYPES:
        raise PruningError(
            f"{source.name} is {dtype}: quantised or no weight; dequantise the model and save it "
            "in bf16 or fp32 first"
        )

    def pieces() -> Iterator[TorchTensor]:
        view = reader.view(source.name)
        rows = cut.rows(source)
        if name in changes.edits:
            yield changes.applied(name, take(view, rows))
            return
        for piece in take_in_chunks(view, rows, CHUNK_BYTES):
            yield changes.applied(name, piece)

    return Planned(name, tuple(count_of(part) for part in cut.rows(source)), dtype, pieces)


def _in_memory(name: str, tensor: TorchTensor) -> Planned:
    return Planned(name, tuple(tensor.shape), TYPE_NAMES[tensor.dtype], lambda: iter([tensor]))


def _in_type(planned: Planned, dtype: str) -> Planned:
    def pieces() -> Iterator[TorchTensor]:
        return (piece.to(TENSOR_TYPES[dtype]) for piece in planned.pieces())

    return replace(planned, dtype=dtype, pieces=pieces)


def _compensated(cut: Cut, changes: Changes) -> Changes:
    """The family's own compensation for a smaller hidden size, and then `changes`."""
    if cut.architecture.hidden == cut.whole.hidden:
        return changes
    return Changes(scales=family_of(cut.teacher).rescale(cut.teacher, cut.architecture)) | changes
