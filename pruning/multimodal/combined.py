"""Students put back: a copy of a multimodal checkpoint whose text model is a student of it.

Everything else is as it was. The projector writes into the hidden channels of the text model, so
that a student of another hidden size does not fit, and one whose channels were sorted gets them
back in the order that the teacher had.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig
from transformers.initialization import no_init_weights

from common.errors import PruningError
from common.files import require_space
from pruning.families.checkpoint import Checkpoint, opened
from pruning.families.config_file import CONFIG_FILE, raw_config
from pruning.families.loading import quiet
from pruning.families.shapes import architecture_of, parameter_count
from pruning.families.table import family_of
from pruning.importance.ordering import Ordering
from pruning.multimodal.configuration import TEXT_CONFIG, changes, multimodal_class, with_text
from pruning.multimodal.loading import check_report
from pruning.multimodal.part import TextPart
from pruning.slicing.selection import Slice
from pruning.slicing.student import tensor_plans
from pruning.slicing.writer import TensorPlan, write_tensors

PROCESSOR = "*processor_config.json"
"""Files with what makes pictures and sound into the input of a multimodal model."""


def check_whole(part: TextPart) -> None:
    """Raises PruningError for a multimodal folder that a copy of would be of no use: without the
    processor, or without weights of its own."""
    check_report(part.folder, part.report)
    if next(part.folder.glob(PROCESSOR), None) is None:
        raise PruningError(
            f"the multimodal model in {part.folder} has no processor (no file like "
            "preprocessor_config.json), without which nobody can use a copy of it; save the "
            "processor there, with processor.save_pretrained"
        )


def check_student(part: TextPart, student: PretrainedConfig) -> None:
    """Raises PruningError where a student with this configuration cannot take the place of the
    text model."""
    kind, own, whole = part.whole.model_type, architecture_of(student), architecture_of(part.config)
    if student.model_type != part.config.model_type or own.per_layer:
        raise PruningError(
            f"the text model of {kind} is a stock {part.config.model_type} whose layers are all "
            f"alike, and the student a {student.model_type} of {own}"
        )
    if own.hidden != whole.hidden:
        raise PruningError(
            f"the student has hidden size {own.hidden}, and what {kind} makes of pictures has "
            f"{whole.hidden}; keep the hidden size at {whole.hidden}"
        )
    for name in ("vocab_size", "tie_word_embeddings"):
        values = getattr(student, name), getattr(part.config, name)
        if values[0] != values[1]:
            raise PruningError(
                f"the student has {name} {values[0]}, the multimodal model {values[1]}; give a "
                "student that was cut out of it"
            )
    vision = getattr(part.whole, "vision_config", None)
    entries: list[int] = getattr(vision, "deepstack_visual_indexes", None) or []
    if len(entries) > own.layers:
        raise PruningError(
            f"{kind} adds pictures to the first {len(entries)} layers of its text model, and the "
            f"student has {own.layers}; keep at least {len(entries)}"
        )
    _check_build(part, student)


def _check_build(part: TextPart, student: PretrainedConfig) -> None:
    """Raises PruningError where the multimodal class builds a text model of other sizes."""
    config = with_text(part.whole, changes(part.config, student))
    with quiet(), no_init_weights(), torch.device("meta"):
        model = multimodal_class(config)(config)
        model.tie_weights()
    inside = list(model.get_decoder().parameters())
    head = model.get_output_embeddings()
    inside += [] if head is None else list(head.parameters())
    built = sum(weight.numel() for weight in {id(weight): weight for weight in inside}.values())
    own = architecture_of(student)
    expected = int(parameter_count(student, own))
    if built != expected:
        raise PruningError(
            f"{part.whole.model_type} cannot say the student, {own}: its class builds a text model "
            f"of {built:,} parameters, and the student has {expected:,}; cut other sizes (without "
            "a head_dim of its own, all heads stay)"
        )


def channels_in_order(channels: Sequence[int] | None, hidden: int) -> Tensor:
    """Place of each channel of the teacher among those of a student.

    Args:
        channels: The teacher's channel, for each of the student's; None where it is not known.
        hidden: How many there are.

    Raises:
        PruningError: They are not known, or not all of the teacher's.
    """
    if channels is None:
        raise PruningError(
            "the student does not say which channel of the teacher each of its own was "
            "(kept_channels in prune.json), and pictures would be written into others; give a "
            "student that run_prune.py, run_search.py or run_distill.py wrote"
        )
    if sorted(channels) != list(range(hidden)):
        raise PruningError(
            f"the student's prune.json names {len(channels)} channels, which are not the {hidden} "
            "of the multimodal model; give a student that was cut out of it, with its hidden size"
        )
    return torch.tensor(channels).argsort()


@dataclass(frozen=True)
class Combined:
    """A multimodal checkpoint with a student in the place of its text model."""

    part: TextPart
    """The multimodal checkpoint."""
    student: Checkpoint
    """The student of its text model."""
    channels: Sequence[int] | None
    """The teacher's channel, for each hidden channel of the student."""

    def write(self, directory: Path) -> None:
        """Write weights and config.json of the multimodal student into `directory`.

        Raises:
            PruningError: It does not fit, or the disk is too small.
        """
        self.check()
        with self.student.reading() as reader:
            own = [
                replace(plan, name=self._stored(plan.name))
                for plan in tensor_plans(reader, self._in_order)
            ]
            plans = [*own, *self._others()]
            require_space(directory.parent, sum(p.bytes for p in plans), error=PruningError)
            write_tensors(plans, directory)
        self._write_config(directory)

    def check(self) -> None:
        """Raises PruningError where the student does not fit."""
        check_student(self.part, self.student.config)
        channels_in_order(self.channels, architecture_of(self.student.config).hidden)

    @property
    def parameters_beside(self) -> int:
        """Of everything that is not the text model."""
        return sum(int(torch.Size(plan.shape).numel()) for plan in self._others())

    @property
    def _in_order(self) -> Slice:
        """All of the student, its channels in the teacher's order."""
        config = self.student.config
        whole = architecture_of(config)
        hidden = channels_in_order(self.channels, whole.hidden)
        return Slice.whole(config, replace(Ordering.identity(whole), hidden=hidden))

    @property
    def _prefix(self) -> str:
        """What stands before the names of the text model in the multimodal files."""
        family = family_of(self.part.config)
        embedding = next(iter(family.model_tensors))
        return self.part.names[embedding].removesuffix(embedding.removeprefix(family.base_prefix))

    def _stored(self, name: str) -> str:
        family = family_of(self.part.config)
        if name == family.output_head[0]:
            return self.part.names[name]
        return self._prefix + name.removeprefix(family.base_prefix)

    def _others(self) -> Iterator[TensorPlan]:
        """The tensors of the files that are not of the text model, as they are."""
        family = family_of(self.part.config)
        layers = self._prefix + family.layer_prefix.removeprefix(family.base_prefix) + "."
        of_text = set(self.part.names.values())
        for file, names in self.part.checkpoint.files().items():
            with opened(file) as source:
                views = {name: source.get_slice(name) for name in names}
                for name, view in views.items():
                    if name not in of_text and not name.startswith(layers):
                        shape, dtype = tuple(view.get_shape()), view.get_dtype()
                        yield TensorPlan(name, shape, dtype, partial(_as_it_is, file, name))

    def _write_config(self, directory: Path) -> None:
        """config.json: the multimodal model's own, with what the student has otherwise."""
        whole, raw = self.part.whole, raw_config(self.part.folder)
        changed = changes(self.part.config, self.student.config)
        nested = isinstance(raw.get(TEXT_CONFIG), dict)
        text = dict(raw[TEXT_CONFIG] if nested else raw)
        older: dict[str, Any] = type(whole.get_text_config()).attribute_map
        text |= {old: changed[now] for old, now in older.items() if old in text and now in changed}
        text |= changed
        of_layers = family_of(self.student.config).older_names.of_layers(self.student.config)
        text |= {name: value for name, value in of_layers.items() if name in text}
        values = raw | {TEXT_CONFIG: text} if nested else text
        content = json.dumps(values, indent=2, sort_keys=True)
        (directory / CONFIG_FILE).write_text(content + "\n", encoding="utf-8")
        found = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        wrong = changes(with_text(whole, changed).get_text_config(), found.get_text_config())
        if wrong:
            raise PruningError(
                f"config.json of {self.part.folder} says {min(wrong)} of the text model in a way "
                "that a student's cannot be put in; save it with save_pretrained first"
            )


def _as_it_is(file: Path, name: str) -> Iterator[Tensor]:
    with opened(file) as source:
        yield source.get_tensor(name).reshape(-1)
