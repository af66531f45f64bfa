"""lm-eval tasks of the winner, beside the teacher."""

import logging
import tempfile
from pathlib import Path

import torch

from common.progress import tell
from distill import Corpus
from distill.backend import load
from distill.evaluation import (
    ContextLimit,
    Questions,
    TaskSet,
    evaluate_tasks,
    write_next_line_questions,
)
from search.inputs.inputs import Inputs
from search.results.results import TaskResults
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


def run_tasks(inputs: Inputs, corpus: Corpus, *, outputs: Workspace) -> TaskResults:
    """Run lm-eval on winner and teacher with questions from the test documents; empty without
    tasks."""
    config = inputs.config
    if not config.task_names:
        return TaskResults()
    with tempfile.TemporaryDirectory(dir=outputs.root) as scratch:
        data = Path(scratch) / "questions.jsonl"
        tokenizer, tasks = inputs.teacher.tokenizer, inputs.tasks
        if tasks.uses_data and not write_next_line_questions(
            corpus.texts("test"),
            data,
            count=config.task_questions,
            seed=config.seed,
            limit=ContextLimit(tokenizer, inputs.block, config.corpus_from.bos),
        ):
            LOGGER.info("tasks: the test documents are too short to build questions from")
            tasks = TaskSet(names=tasks.names)
            if not tasks.names:
                return TaskResults()
        questions = Questions(
            tasks,
            inputs.block,
            data=data,
            bos=config.corpus_from.bos,
            limit=config.task_questions,
        )
        results = {}
        for name, model in (
            ("winner", load(outputs.best, torch.float32)),
            ("teacher", inputs.teacher.load(torch.device("cpu"), inputs.teacher_dtype)),
        ):
            tell(LOGGER, work=f"lm-eval tasks of the {name}")
            results[name] = evaluate_tasks(
                model.to(inputs.device),  # type: ignore[arg-type]
                tokenizer,
                questions,
            )
            for task, metrics in results[name].items():
                shown = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items())
                LOGGER.info(f"task {task}: {name}: {shown}")
    return TaskResults(**results)
