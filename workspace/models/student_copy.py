"""Copies of per-layer students for other software, proven against the student."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common.errors import PruningError, SearchStopped
from common.files import require_space, write_directory_atomically
from distill.backend import load
from distill.evaluation import answers, answers_kl
from pruning import architecture_of
from pruning.exports import FORMS, copied_parameters, copy_config, load_copy
from workspace.models.copied_files import copy_files
from workspace.models.model_source import BESIDE, GENERATION, LICENCES, TOKENIZER_FILES, ModelSource

LOGGER = logging.getLogger(__name__)
CONFIG = "config.json"
TOKENS = 64
"""Of the text of random tokens that student and copy are held against each other on."""
MOST_KL = 1e-6
"""Nats per token that rounding may put between them in fp32."""


def place_copy(student: ModelSource, form: str, directory: Path) -> None:
    """Write a copy of a per-layer `student` with all that belongs beside it, but no card.

    Args:
        student: The student.
        form: One of `pruning.exports.FORMS`.
        directory: An empty one.

    Raises:
        PruningError: The form cannot say this student, or the disk is too small.
        SearchStopped: The copy that was written computes something else.
    """
    own = student.parameters
    copied = copied_parameters(student.config, form)
    require_space(directory.parent, copied * student.dtype.itemsize, error=PruningError)
    FORMS[form].write(student.checkpoint, directory)
    beside = (*TOKENIZER_FILES, *BESIDE, GENERATION, *LICENCES)
    copy_files(student.directory, beside, directory=directory)
    LOGGER.info(f"{form} copy: {copied:,} parameters, the student has {own:,} ({copied / own:.0%})")
    LOGGER.info(_proof(student, form, directory))


def write_copies(
    student: Path, forms: Sequence[str], write_card: Callable[[Path, str], None]
) -> None:
    """Write copies of the student in a folder beside it, such as best-padded of best.

    One that is there and no older than the student stays. Of a student whose layers are all alike,
    or that a form cannot say, a line says so instead.

    Args:
        student: Its folder.
        forms: Of the copies.
        write_card: Writes the card of a copy: (folder of the copy, form).

    Raises:
        SearchStopped: A copy that was written computes something else.
    """
    source = ModelSource(student)
    if forms and not architecture_of(source.config).per_layer:
        LOGGER.info(
            f"no copies of {student}: its layers are all alike, so that any software takes it"
        )
        return
    for form in forms:
        copy = copy_folder(student, form)
        try:
            copy_config(source.config, form)
        except PruningError as problem:
            LOGGER.info(f"no {form} copy of {student}: {problem}")
            continue
        written = copy / CONFIG
        if written.exists() and written.stat().st_mtime >= (student / CONFIG).stat().st_mtime:
            continue

        def fill(directory: Path, form: str = form) -> None:
            place_copy(source, form, directory)
            write_card(directory, form)

        write_directory_atomically(copy, fill)
        LOGGER.info(f"written: {copy}")


def copy_folder(student: Path, form: str) -> Path:
    """Where the copy of the student in a folder goes."""
    return student.with_name(f"{student.name}-{form}")


def _proof(student: ModelSource, form: str, directory: Path) -> str:
    """A line that says that the copy is the student."""
    vocabulary, length = student.config.vocab_size, min(TOKENS, student.positions)
    text = np.random.default_rng(0).integers(vocabulary, size=length)
    expected = answers(load(student.directory, "auto"), text)
    kl = answers_kl(expected, answers(load_copy(student.config, form, directory), text))
    if not kl < MOST_KL:
        raise SearchStopped(
            f"the {form} copy in {directory} gives other answers than {student.directory} (KL "
            f"{kl:.2g} nats per token, above {MOST_KL:g}); the disk may be at fault"
        )
    return f"proof: the {form} copy answers as the student does (KL {kl:.1e} per token)"
