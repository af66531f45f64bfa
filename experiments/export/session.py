"""Write a copy of a student, proven, with all that belongs beside it."""

import logging

from common.errors import SearchError
from common.files import fresh_directory
from common.log import timed_lines
from common.machine import Machine
from experiments.export.config import ExportConfig
from pruning import PruningError, architecture_of
from pruning.multimodal import TextPart
from search.results import write_copy_card
from workspace.models import ModelSource, check_copy, place_copy

LOGGER = logging.getLogger(__name__)


@timed_lines()
def run_export(config: ExportConfig) -> None:
    """Write the copy.

    Raises:
        SearchError, PruningError: Something cannot be used; nothing was written.
        SearchStopped: The copy computes something else.
    """
    Machine.here().keep_to_quota()
    student = ModelSource.located(config.student, role="student")
    part = None if config.multimodal is None else _text_part(config.multimodal)
    try:
        check_copy(student, config.form, part)
    except PruningError as problem:
        raise PruningError(f"--student {config.student}: {problem}") from problem
    student.check()
    LOGGER.info(f"student: {architecture_of(student.config)}")
    with fresh_directory(config.output, error=PruningError) as aside:
        place_copy(student, config.form, aside, part=part)
        write_copy_card(aside, config.form, student=student.directory, name=config.student)
    LOGGER.info(f"written: {config.output}")


def _text_part(name: str) -> TextPart:
    """The text model of the multimodal model called `name`."""
    part = ModelSource.located(name, role="multimodal").part
    if part is None:
        raise SearchError(f"--multimodal is {name}, which is no multimodal model")
    return part
