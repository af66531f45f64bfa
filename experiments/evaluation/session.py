"""Session of an evaluation: models opened and checked, measured part by part, held side by side."""

import logging
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from common.errors import SearchError, require
from common.log import timed_lines
from common.machine import Machine
from distill.evaluation import ContextLimit, TaskSet, check_tasks, write_next_line_questions
from experiments.evaluation.config import EvaluateConfig
from experiments.evaluation.measuring.contenders import Contender, common_positions, opened
from experiments.evaluation.measuring.measured import Measured, Store
from experiments.evaluation.measuring.parts import Asked
from experiments.evaluation.measuring.pieces import question_texts, read_pieces
from experiments.evaluation.measuring.runner import Measuring
from experiments.evaluation.measuring.speed import check_context
from experiments.evaluation.report.notes import notes_of
from experiments.evaluation.report.outputs import CSV, JSON, PAGE, Outputs
from experiments.evaluation.report.tables import summaries, text_table
from search.database import locked
from workspace.layout import Workspace
from workspace.settings import LONGEST_BLOCK, resolve_device

LOGGER = logging.getLogger(__name__)
QUESTIONS = "questions.jsonl"
DEFAULT_QUESTIONS = 200
"""Built of the text."""


@timed_lines()
def run_evaluate(config: EvaluateConfig) -> None:
    """Hold the models side by side, or go on.

    Raises:
        SearchError, PruningError, DistillError: Something cannot be used.
    """
    disable_progress_bar()
    workspace = Workspace(config.output.expanduser().absolute(), "--output")
    Machine.here().keep_to_quota()
    device = resolve_device(config.device)
    contenders = opened(config, workspace)
    positions = common_positions(contenders)
    block = _block(config, positions)
    if config.speed.seconds > 0:
        check_context(config.speed, positions)
    tasks = _tasks(config)
    texts = question_texts(config) if _wants_data(tasks) else []
    pieces = None if config.corpus is None else read_pieces(config, contenders[0], block)
    workspace.make()
    with locked(workspace.root):
        data = _questions(config, texts, contenders[0], workspace.root, positions=positions)
        asked = Asked(config, device, pieces, tasks, data, positions)
        outputs = Outputs(config, workspace.root, tuple(notes_of(asked, contenders)))
        for line in _opening_lines(asked, contenders):
            LOGGER.info(line)
        measuring = Measuring(asked, contenders, Store(workspace.root), after=outputs.write)
        measuring.run()
        _close(measuring.every, outputs)


def _block(config: EvaluateConfig, positions: int) -> int:
    """Tokens of the text that are read at once."""
    if config.block is not None and config.block > positions:
        raise SearchError(
            f"--block is {config.block}, but one of the models has only {positions} positions"
        )
    return config.block or min(LONGEST_BLOCK, positions)


def _tasks(config: EvaluateConfig) -> tuple[TaskSet, ...]:
    """A set for each of --tasks. Raises DistillError where one cannot be asked, or SearchError."""
    if not config.task_names:
        return ()
    check_tasks(TaskSet.of(config.task_names))
    tasks = tuple(TaskSet.of(name) for name in config.task_names)
    require(
        config.corpus is not None or not _wants_data(tasks),
        "a task file of --tasks asks questions that are built of a text ($data), and --corpus "
        "names none; give one",
    )
    return tasks


def _wants_data(tasks: Sequence[TaskSet]) -> bool:
    return any(each.uses_data for each in tasks)


def _questions(
    config: EvaluateConfig, texts: list[str], reference: Contender, root: Path, *, positions: int
) -> Path | None:
    """File of the questions that are built of the text; None where no task wants any.

    Raises SearchError where the text is too short.
    """
    if not texts:
        return None
    path = root / QUESTIONS
    length = config.block or positions
    written = write_next_line_questions(
        texts,
        path,
        count=config.task_questions or DEFAULT_QUESTIONS,
        seed=config.seed,
        limit=ContextLimit(reference.tokenizer, length, config.corpus_from.bos),
    )
    require(
        written > 0,
        "the documents of --corpus are too short to build questions from; give longer ones, or "
        "leave the tasks out that want $data",
    )
    return path


def _opening_lines(asked: Asked, contenders: Sequence[Contender]) -> list[str]:
    lines = [
        f"{each.label}: {each.shape}, {each.source.parameters:,} parameters"
        + (" (reference)" if each is contenders[0] and len(contenders) > 1 else "")
        for each in contenders
    ]
    if asked.pieces is not None:
        size = sum(len(text.encode()) for text in asked.pieces.texts)
        lines.append(
            f"text: {len(asked.pieces.texts):,} pieces, {size:,} bytes, {asked.pieces.block} "
            "tokens at once"
        )
    return lines


def _close(every: Sequence[Measured], outputs: Outputs) -> None:
    found = outputs.write(every)
    labels = [measured.contender.label for measured in every]
    for line in [*text_table(found, labels), *summaries(found, labels)]:
        LOGGER.info(line)
    for note in [note for measured in every for note in measured.notes]:
        LOGGER.info(note)
    root = outputs.root
    LOGGER.info(f"written: {root / PAGE}, {root / JSON}, {root / CSV}")
