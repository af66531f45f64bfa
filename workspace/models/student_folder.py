"""Folder of a student: beside its weights, all that others need to load, serve and pass it on.

Every command finishes its folders here: `best/`, `winners/`, those of run_prune and run_distill.
"""

from pathlib import Path

from transformers import AutoConfig

from pruning.families import raw_config, write_config
from workspace.models.copied_files import copy_files
from workspace.models.model_source import BESIDE, GENERATION, LICENCES, TOKENIZER_FILES, ModelSource

TEMPLATES = ("*.jinja", "chat_template*", "additional_chat_templates/*")
"""Chat templates: they make no tokenizer."""


def place_student(
    model: Path, directory: Path, *, parent: ModelSource, teacher: ModelSource | None = None
) -> None:
    """Copy the trained model in `model` into `directory`, and finish that."""
    copy_files(model, ("*",), directory=directory)
    finish_folder(directory, parent, teacher=teacher)


def finish_folder(
    directory: Path, parent: ModelSource, *, teacher: ModelSource | None = None
) -> None:
    """Put everything but the card beside weights and config.json of a student in `directory`.

    config.json keeps the keys of `parent`, the model that the student was made of. Tokenizer,
    generation settings and licences are copied byte for byte from there, and from the `teacher`
    that it learned from where `parent` has none.
    """
    sources = [parent] if teacher is None else [parent, teacher]
    student = AutoConfig.from_pretrained(directory)
    write_config(directory, raw_config(parent.directory), student)
    copy_tokenizer(sources, directory)
    for source in reversed(sources):  # those of the parent come last and stay
        copy_files(source.directory, LICENCES, directory=directory)
    for source in sources:
        if copy_files(source.directory, (GENERATION,), directory=directory):
            break


def copy_tokenizer(sources: list[ModelSource], directory: Path) -> None:
    """Copy the tokenizer of the first of `sources` that has one.

    Saved anew it would be another: in classes that older software does not know, without the files
    of its original format.
    """
    for source in sources:
        if _has_tokenizer(source.directory):
            copy_files(source.directory, (*TOKENIZER_FILES, *BESIDE), directory=directory)
            return
    sources[-1].tokenizer.save_pretrained(directory)


def _has_tokenizer(directory: Path) -> bool:
    files = {file for pattern in (*TOKENIZER_FILES, *BESIDE) for file in directory.glob(pattern)}
    templates = {file for pattern in TEMPLATES for file in directory.glob(pattern)}
    return bool(files - templates)
