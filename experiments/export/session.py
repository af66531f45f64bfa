"""Write a copy of a per-layer student, proven, with all that belongs beside it."""

import logging

from common.files import fresh_directory
from common.log import timed_lines
from common.machine import Machine
from experiments.export.config import ExportConfig
from pruning import PruningError, architecture_of
from pruning.exports import copy_config
from search.results import write_copy_card
from workspace.models import ModelSource, place_copy

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
    try:
        copy_config(student.config, config.form)
    except PruningError as problem:
        raise PruningError(f"--student {config.student}: {problem}") from problem
    student.check()
    LOGGER.info(f"student: {architecture_of(student.config)}")
    with fresh_directory(config.output, error=PruningError) as aside:
        place_copy(student, config.form, aside)
        write_copy_card(aside, config.form, student=student.directory, name=config.student)
    LOGGER.info(f"written: {config.output}")
