"""Text models of multimodal teachers: written once, as a folder that all that follows reads."""

import logging
from pathlib import Path

from common.errors import PruningError, SearchError
from common.files import write_directory_atomically
from common.progress import Progress, Throttle, duration
from distill.targets import shown_bytes
from pruning.families import raw_config, shown_names
from pruning.multimodal import TextPart
from workspace.models.copied_files import copy_files

LOGGER = logging.getLogger(__name__)
SECONDS = 10.0
"""Between two lines about a copy that takes long."""


def text_part_of(folder: Path, name: str, *, role: str) -> TextPart:
    """The text model of the multimodal model in `folder`, which the user called `name`.

    Raises SearchError where it cannot be had alone, where students cannot be made of it, and where
    its `role` is that of a student.
    """
    if role == "student":
        raise SearchError(
            f"the {role} {name} is a multimodal model; give a text model, such as those that "
            "run_prune.py cuts out of it"
        )
    if raw_config(folder).get("quantization_config"):
        raise SearchError(
            f"{name} is quantised; dequantise it and save it in bf16 or fp32 first "
            "(model.dequantize() and save_pretrained in transformers)"
        )
    try:
        part = TextPart.of(folder)
        part.check()
    except PruningError as problem:
        raise SearchError(
            f"{name} is a multimodal model, whose text model cannot be used: {problem}"
        ) from problem
    if role == "teacher":
        LOGGER.info(f"teacher: {part.line}; students are text models")
        LOGGER.info(str(part.proof))
    return part


def place_text_model(part: TextPart, directory: Path, beside: tuple[str, ...]) -> Path:
    """Write the text model into `directory`, with the files that match `beside`, if it is not there
    yet; returns the directory. Raises PruningError for a disk that is too small."""
    if part.left_aside:
        shown = shown_names(part.left_aside)
        LOGGER.info(f"teacher: tensors that transformers has no use for left out: {shown}")
    if directory.exists():
        LOGGER.info(f"text model: found {directory.name}")
        return directory
    LOGGER.info(f"text model: {shown_bytes(part.bytes)} are copied into {directory.name}")
    progress, due = Progress(part.bytes), Throttle(SECONDS)

    def tell(written: int, total: int) -> None:
        if due():
            left = progress.left(written)
            LOGGER.info(f"text model: {written / total:.0%} copied, {duration(left)} left")

    def fill(aside: Path) -> None:
        part.write(aside, tell)
        copy_files(part.folder, beside, directory=aside)

    write_directory_atomically(directory, fill)
    return directory
