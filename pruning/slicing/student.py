"""Students cut out of a sorted teacher or straight out of the teacher, and the sorted teacher.

The sorted teacher is the teacher with hidden channels, FFN neurons, heads and experts permuted: it
computes the same function, and every candidate is a prefix of it. Hidden channels and neurons are
prefixes directly; query heads are a prefix inside each kept KV group. Cutting is copying slices of
memory-mapped files, tensor by tensor.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from common.errors import PruningError
from common.files import fresh_directory, require_space
from pruning.families.architecture import Architecture
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.config_file import raw_config, write_config
from pruning.families.loading import misfit, quiet
from pruning.families.table import family_of
from pruning.families.tensors import TENSOR_TYPES, TYPE_NAMES, save_tensors
from pruning.families.words import TensorSpec
from pruning.importance.ordering import Ordering
from pruning.slicing.configuration import student_config
from pruning.slicing.edits import NO_EDITS, WeightEdits
from pruning.slicing.library import BlockLibrary
from pruning.slicing.selection import Slice, gather_in_chunks
from pruning.slicing.writer import TensorPlan, write_tensors

ORDERING_FILE = "ordering.safetensors"
ENERGIES_FILE = "energies.safetensors"


def write_sorted_teacher(
    teacher: Checkpoint,
    ordering: Ordering,
    output: Path,
    *,
    mean_squares: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the sorted teacher to the new directory `output`, with its ordering beside it.

    Args:
        teacher: The checkpoint to sort.
        ordering: Its new order.
        output: A directory that does not exist yet, or is empty.
        mean_squares: Of the inputs of its norms (see `pruning.importance.moments`): written too,
            sorted, for students that are to be rescaled.

    Raises:
        PruningError: The disk is too small, or `output` is not empty.
    """
    cut = Slice.whole(teacher.config, ordering)
    with teacher.reading() as reader, fresh_directory(output, error=PruningError) as directory:
        _write(tensor_plans(reader, cut), directory, output=output)
        write_config(directory, raw_config(teacher.directory), teacher.config)
        ordering.save(directory / ORDERING_FILE)
        if mean_squares is not None:
            specs = {t.name: t for t in family_of(teacher.config).tensors(teacher.config)}
            in_order = {
                name: cut.gather(values, specs[name]) for name, values in mean_squares.items()
            }
            save_tensors(in_order, directory / ENERGIES_FILE)


def write_student(
    teacher: Checkpoint,
    architecture: Architecture,
    kept_layers: Sequence[int],
    output: Path,
    *,
    ordering: Ordering | None = None,
) -> None:
    """Cut a student and write it as an ordinary checkpoint, as `write_slice` does.

    Without `ordering`, `teacher` is a sorted teacher.

    Raises:
        PruningError: As `Slice.of` and `write_slice`.
    """
    cut = Slice.of(teacher.config, architecture, kept_layers=kept_layers, ordering=ordering)
    write_slice(teacher, cut, output=output)


def write_slice(
    teacher: Checkpoint, cut: Slice, *, output: Path, edits: WeightEdits = NO_EDITS
) -> None:
    """Write a student as an ordinary checkpoint to the new directory `output`.

    Host memory stays within a few times the largest tensor. All tensors are written in the type of
    most of the teacher's bytes: what loads a checkpoint gives it one type anyway. An interrupted
    write leaves nothing.

    Raises:
        PruningError: The disk is too small, or `output` is not empty.
    """
    with teacher.reading() as reader, fresh_directory(output, error=PruningError) as directory:
        plans = tensor_plans(reader, cut, edits=edits, dtype=TYPE_NAMES[teacher.dtype])
        config = _config(cut, edits)
        if cut.architecture.per_layer:
            buffers = family_of(teacher.config).buffers
            parameters = [plan for plan in plans if not plan.name.endswith(buffers)]
            _check_build(config, sum(prod(plan.shape) for plan in parameters))
        _write(plans, directory, output=output)
        config.dtype = teacher.dtype
        write_config(directory, raw_config(teacher.directory), config)


def cut_student(
    teacher: Checkpoint,
    architecture: Architecture,
    kept_layers: Sequence[int],
    *,
    ordering: Ordering | None = None,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Cut a student and return it as a stock model, as `load_slice` does.

    Without `ordering`, `teacher` is a sorted teacher.

    Raises:
        PruningError: As `Slice.of` and `load_slice`.
    """
    cut = Slice.of(teacher.config, architecture, kept_layers=kept_layers, ordering=ordering)
    return load_slice(teacher, cut, dtype=dtype)


def load_slice(
    teacher: Checkpoint,
    cut: Slice,
    *,
    edits: WeightEdits = NO_EDITS,
    library: BlockLibrary | None = None,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A student as a stock model in `dtype`, in train mode.

    Training wants fp32 weights; the teacher's own precision is for comparing the two. Where layers
    differ, those attentions and FFNs that are not the teacher's own come out of the `library`, if
    there is one.

    Raises:
        PruningError: transformers builds another model than the table of families describes.
    """
    tensors: dict[str, Tensor] = {}
    with ExitStack() as stack:
        own = stack.enter_context(teacher.reading())
        trained = None if library is None else stack.enter_context(library.reading(cut))
        edits = _compensated(cut, edits)
        for name, source in cut.tensors():
            reader = (trained(source) if trained else None) or own
            tensor = cut.gather(reader.view(source.name), source)
            tensors[name] = edits.apply(name, tensor).to(dtype, copy=True)
    tensors |= {name: tensor.to(dtype) for name, tensor in edits.added.items()}
    config = _config(cut, edits)
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with quiet(), torch.random.fork_rng(devices=[]):  # some classes draw what is then loaded
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
        )
    if misfit(report):
        raise PruningError(
            f"the row {config.model_type} of the table of families does not fit the model that "
            f"transformers builds: {misfit(report)}"
        )
    model.train()
    student: PreTrainedModel = model
    return student


def _config(cut: Slice, edits: WeightEdits) -> PretrainedConfig:
    return student_config(cut.teacher, cut.architecture, cut.kept_layers, changed=edits.config)


def tensor_plans(
    reader: Reader, cut: Slice, *, edits: WeightEdits = NO_EDITS, dtype: str | None = None
) -> list[TensorPlan]:
    """The student's tensors, all in `dtype` or each in its own type."""
    edits = _compensated(cut, edits)
    plans = [
        _plan(reader, cut, name=name, source=source, edits=edits)
        for name, source in cut.tensors()
        if name not in edits.added
    ]
    plans += [_in_memory(name, tensor) for name, tensor in edits.added.items()]
    return [_in_type(plan, dtype) for plan in plans] if dtype else plans


def _check_build(config: PretrainedConfig, parameters: int) -> None:
    """Raises PruningError where transformers builds a model of other sizes of `config`, as it does
    where its classes do not know a word of it."""
    with no_init_weights(), torch.device("meta"):
        model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        model = model_class(config)
    model.tie_weights()
    if model.num_parameters() != parameters:
        raise PruningError(
            f"the model that transformers builds of the student has {model.num_parameters():,} "
            f"parameters, but its files would have {parameters:,}; cut another student, or take "
            "another version of transformers"
        )


def _write(plans: list[TensorPlan], directory: Path, *, output: Path) -> None:
    require_space(output.parent, sum(plan.bytes for plan in plans), error=PruningError)
    write_tensors(plans, directory)


def _plan(
    reader: Reader, cut: Slice, *, name: str, source: TensorSpec, edits: WeightEdits
) -> TensorPlan:
    dtype = reader.dtype(source.name)
    if dtype not in TENSOR_TYPES:
        raise PruningError(
            f"{source.name} is {dtype}: quantised or no weight; dequantise the model and save it "
            "in bf16 or fp32 first"
        )

    def pieces() -> Iterator[Tensor]:
        view = reader.view(source.name)
        if name in edits.edits:
            yield edits.apply(name, cut.gather(view, source))
            return
        for selection in cut.pieces(source):
            for piece in gather_in_chunks(view, selection):
                yield edits.apply(name, piece)

    return TensorPlan(name, cut.shape(source), dtype, pieces)


def _in_memory(name: str, tensor: Tensor) -> TensorPlan:
    return TensorPlan(name, tuple(tensor.shape), TYPE_NAMES[tensor.dtype], lambda: iter([tensor]))


def _in_type(plan: TensorPlan, dtype: str) -> TensorPlan:
    def pieces() -> Iterator[Tensor]:
        return (piece.to(TENSOR_TYPES[dtype]) for piece in plan.pieces())

    return replace(plan, dtype=dtype, pieces=pieces)


def _compensated(cut: Slice, edits: WeightEdits) -> WeightEdits:
    """The family's own compensation for a smaller hidden size, and then `edits`."""
    if cut.architecture.hidden == cut.teacher_sizes.hidden:
        return edits
    scales = family_of(cut.teacher).rescale(cut.teacher, cut.architecture)
    return WeightEdits(scales=scales) | edits
