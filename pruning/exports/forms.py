"""Forms of copies: which there are, what each can say, and writing and loading one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from common.errors import PruningError
from pruning.exports.decilm import decilm_layers, write_decilm
from pruning.exports.names import DECILM, MULTIMODAL, PADDED
from pruning.exports.padded import padded_layers, write_padded
from pruning.exports.padding import PaddedLayer, stock_config
from pruning.families.architecture import Architecture
from pruning.families.checkpoint import Checkpoint
from pruning.families.loading import quiet
from pruning.families.shapes import architecture_of, block_of, parameter_count
from pruning.multimodal import TextPart, check_student, check_whole
from pruning.slicing.configuration import student_config


@dataclass(frozen=True)
class CopyForm:
    """A form in which a per-layer student can be written besides its own."""

    layers: Callable[[PretrainedConfig, Architecture], list[PaddedLayer]]
    """(configuration of the student or its teacher, architecture) -> layers of the copy. Raises
    PruningError where the form cannot say them."""
    write: Callable[[Checkpoint, Path], None]
    """Writes weights and configuration of the student's copy into a folder."""


FORMS = {
    PADDED: CopyForm(padded_layers, write_padded),
    DECILM: CopyForm(decilm_layers, write_decilm),
}
"""Forms of students whose layers differ."""


def check_type(
    forms: Sequence[str], teacher: PretrainedConfig, *, part: TextPart | None = None
) -> None:
    """Raises PruningError for a form that can say no student of this teacher, which may be the text
    model, or `part`, of a multimodal one."""
    for form in forms:
        with _named(form):
            if form == MULTIMODAL:
                check_whole(_required(part))
            else:
                FORMS[form].layers(teacher, _of_layers(teacher))


def check_copies(
    forms: Sequence[str], student: PretrainedConfig, *, part: TextPart | None = None
) -> None:
    """Raises PruningError for a form that the student with this configuration cannot have; `part`
    is the text model that it is a student of, of a multimodal teacher."""
    for form in forms:
        with _named(form):
            if form == MULTIMODAL:
                check_whole(_required(part))
                check_student(_required(part), student)
            else:
                copy_config(student, form)


def _of_layers(teacher: PretrainedConfig) -> Architecture:
    """The teacher's own architecture, layer by layer."""
    blocks = [block_of(teacher, index) for index in range(teacher.num_hidden_layers)]
    return Architecture.of_blocks(architecture_of(teacher).hidden, blocks)


@contextmanager
def _named(form: str) -> Iterator[None]:
    """Refusals name the option."""
    try:
        yield
    except PruningError as problem:
        raise PruningError(f"--export has {form}: {problem}") from problem


def _required(part: TextPart | None) -> TextPart:
    if part is None:
        raise PruningError(
            "the teacher is no multimodal model that a student could be put back into; give one, "
            f"or leave {MULTIMODAL} out"
        )
    return part


def copy_config(student: PretrainedConfig, form: str) -> PretrainedConfig:
    """The configuration that a student's copy is loaded with here.

    Raises PruningError for a student whose layers are alike, and what the form cannot say.
    """
    own = architecture_of(student)
    if not own.per_layer:
        raise PruningError(
            f"the student is a stock checkpoint: its layers are all alike ({own}), and software "
            "that knows its type takes it as it is"
        )
    config = stock_config(student)
    layers = FORMS[form].layers(config, own)
    shape = Architecture.of_blocks(own.hidden, [layer.target for layer in layers])
    return student_config(config, shape, [layer.index for layer in layers])


def copied_parameters(student: PretrainedConfig, form: str) -> int:
    """Parameters of a student's copy. Raises PruningError as `copy_config`."""
    config = copy_config(student, form)
    return int(parameter_count(config, architecture_of(config)))


def load_copy(student: PretrainedConfig, form: str, directory: Path) -> PreTrainedModel:
    """The copy in `directory` of a student with this configuration, in the type of its file.

    A padded one is loaded as other software does, by the configuration beside its weights.
    """
    given: Any = {"config": copy_config(student, form)} if form == DECILM else {}
    with quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, dtype="auto", trust_remote_code=False, **given
        )
    copy: PreTrainedModel = loaded.eval()
    return copy
