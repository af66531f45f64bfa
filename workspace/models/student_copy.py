"""Copies of students for other software, proven against the student."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common.errors import PruningError, SearchStopped
from common.files import require_space, write_directory_atomically
from distill.backend import load
from distill.evaluation import answers, answers_kl
from pruning import architecture_of
from pruning.exports import FORMS, MULTIMODAL, copied_parameters, copy_config, load_copy
from pruning.multimodal import (
    PROCESSOR,
    Combined,
    TextPart,
    check_whole,
    load_multimodal,
    text_tokens,
)
from workspace.models.copied_files import copy_files
from workspace.models.cut_facts import facts_of_cut
from workspace.models.model_source import (
    BESIDE,
    GENERATION,
    LICENCES,
    TOKENIZER_FILES,
    ModelSource,
)

LOGGER = logging.getLogger(__name__)
CONFIG = "config.json"
TOKENS = 64
"""Of the text of random tokens that student and copy are held against each other on."""
MOST_KL = 1e-6
"""Nats per token that rounding may put between them in fp32."""


def check_copy(student: ModelSource, form: str, part: TextPart | None = None) -> None:
    """Raises PruningError where a `student` cannot be copied in this form; `part` is the text model
    that it was cut from, of the multimodal model that it is to be put back into."""
    if form == MULTIMODAL:
        assert part is not None, "there is a multimodal model to put it back into"
        check_whole(part)
        _combined(student, part).check()
    else:
        copy_config(student.config, form)


def place_copy(
    student: ModelSource, form: str, directory: Path, *, part: TextPart | None = None
) -> None:
    """Write a copy of a `student` with all that belongs beside it, but no card.

    Args:
        student: The student.
        form: One of `pruning.exports.EXPORTS`.
        directory: An empty one.
        part: As in `check_copy`.

    Raises:
        PruningError: The form cannot say this student, or the disk is too small.
        SearchStopped: The copy that was written computes something else.
    """
    own = student.parameters
    beside = (*TOKENIZER_FILES, *BESIDE, GENERATION, *LICENCES)
    if form == MULTIMODAL:
        assert part is not None, "there is a multimodal model to put it back into"
        combined = _combined(student, part)
        combined.write(directory)
        copy_files(part.folder, (*beside, PROCESSOR), directory=directory)
        copied = own + combined.parameters_beside
    else:
        copied = copied_parameters(student.config, form)
        require_space(directory.parent, copied * student.dtype.itemsize, error=PruningError)
        FORMS[form].write(student.checkpoint, directory)
        copy_files(student.directory, beside, directory=directory)
    LOGGER.info(f"{form} copy: {copied:,} parameters, the student has {own:,} ({copied / own:.0%})")
    LOGGER.info(_proof(student, form, directory, part=part))


def write_copies(
    student: Path,
    forms: Sequence[str],
    write_card: Callable[[Path, str], None],
    *,
    part: TextPart | None = None,
) -> None:
    """Write copies of the student in a folder beside it, such as best-padded of best.

    One that is there and no older than the student stays. Of a student whose layers are all alike,
    or that a form cannot say, a line says so instead.

    Args:
        student: Its folder.
        forms: Of the copies.
        write_card: Writes the card of a copy: (folder of the copy, form).
        part: As in `check_copy`.

    Raises:
        SearchStopped: A copy that was written computes something else.
    """
    source = ModelSource(student)
    if set(forms) - {MULTIMODAL} and not architecture_of(source.config).per_layer:
        LOGGER.info(
            f"no copies of {student}: its layers are all alike, so that any software takes it"
        )
        forms = [form for form in forms if form == MULTIMODAL]
    for form in forms:
        copy = copy_folder(student, form)
        try:
            check_copy(source, form, part)
        except PruningError as problem:
            LOGGER.info(f"no {form} copy of {student}: {problem}")
            continue
        written = copy / CONFIG
        if written.exists() and written.stat().st_mtime >= (student / CONFIG).stat().st_mtime:
            continue

        def fill(directory: Path, form: str = form) -> None:
            place_copy(source, form, directory, part=part)
            write_card(directory, form)

        write_directory_atomically(copy, fill)
        LOGGER.info(f"written: {copy}")


def copy_folder(student: Path, form: str) -> Path:
    """Where the copy of the student in a folder goes."""
    return student.with_name(f"{student.name}-{form}")


def _combined(student: ModelSource, part: TextPart) -> Combined:
    return Combined(part, student.checkpoint, facts_of_cut(student.directory).get("kept_channels"))


def _proof(student: ModelSource, form: str, directory: Path, *, part: TextPart | None) -> str:
    """A line that says that the copy is the student."""
    vocabulary, length = student.config.vocab_size, min(TOKENS, student.positions)
    tokens = list(range(vocabulary))
    if form == MULTIMODAL and part is not None:
        tokens = text_tokens(part.whole, vocabulary)
    text = np.array(tokens)[np.random.default_rng(0).integers(len(tokens), size=length)]
    expected = answers(load(student.directory, "auto"), text)
    if form == MULTIMODAL:
        copy = load_multimodal(directory, student.dtype)
    else:
        copy = load_copy(student.config, form, directory)
    kl = answers_kl(expected, answers(copy, text))
    if not kl < MOST_KL:
        raise SearchStopped(
            f"the {form} copy in {directory} gives other answers than {student.directory} (KL "
            f"{kl:.2g} nats per token, above {MOST_KL:g}); the disk may be at fault"
        )
    return f"proof: the {form} copy answers as the student does (KL {kl:.1e} per token)"
