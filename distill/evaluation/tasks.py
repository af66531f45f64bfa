"""lm-eval's tasks on a model in memory, through its Python API."""

import contextlib
import copy
import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.data.settings import AUTO
from distill.evaluation.task_loading import load_tasks, silent
from distill.evaluation.task_model import Progress, asked_class
from distill.evaluation.task_set import TaskSet

LOGGER = logging.getLogger(__name__)
BATCH = 8
"""Requests of a forward pass."""


@dataclass(frozen=True)
class Questions:
    """What tasks ask, and of how much text."""

    tasks: TaskSet
    """Which ones."""
    max_length: int
    """Tokens of a question and its answer, at most; longer ones lose their beginning."""
    data: Path | None = None
    """File that `$data` stands for in task files."""
    bos: str = AUTO
    """How texts begin, as those of a corpus that is read with it (see `CorpusFrom`)."""
    limit: int | None = None
    """Questions of each of lm-eval's own tasks, the first ones; None asks all."""


@dataclass(frozen=True)
class TaskAnswers:
    """What came of one task."""

    metrics: dict[str, float]
    """By name, as lm-eval counts them."""
    questions: dict[str, list[float]]
    """By name, the value of every question, in their order, where the metric is their mean."""
    higher_is_better: dict[str, bool]
    """By name, where lm-eval says it."""


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics by task and name; see `answer_tasks`."""
    answered = answer_tasks(model, tokenizer, questions, progress=progress)
    return {name: answers.metrics for name, answers in answered.items()}


def answer_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions,
    *,
    progress: Progress | None = None,
) -> dict[str, TaskAnswers]:
    """Answers by task, and by group where lm-eval counts one together.

    lm-eval draws from the global random generators, sets the model to evaluation and may give the
    tokenizer a padding token; none of it outlasts the call. Its `simple_evaluate` is not used: that
    runs git and pip to describe the machine.
    """
    if not questions.tasks.names:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval import evaluate

    told = None if progress is None else _aloud(progress)
    with tempfile.TemporaryDirectory() as scratch, _unchanged(model), silent():
        loaded = load_tasks(questions.tasks, questions.data, Path(scratch))
        asked = asked_class(tokenizer, questions.bos, told)(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size=BATCH,
            max_length=questions.max_length,
        )
        first = _first_questions(loaded["tasks"], questions)
        outcome: Any = evaluate(
            asked, loaded, samples=first or None, bootstrap_iters=0, log_samples=True
        )
    if asked.cut:
        LOGGER.info(
            f"tasks: {asked.cut:,} texts are longer than {questions.max_length:,} tokens and lost "
            "their beginning"
        )
    names = [*loaded["tasks"], *(name for name in loaded["groups"] if name in outcome["results"])]
    return {name: _answers(name, outcome) for name in names}


def _first_questions(loaded: Mapping[str, Any], questions: Questions) -> dict[str, list[int]]:
    """Of lm-eval's own tasks that have more than are asked, the numbers of the first."""
    limit = questions.limit
    if limit is None:
        return {}
    in_files = {file.stem for file in questions.tasks.files}
    return {
        name: list(range(limit))
        for name, task in loaded.items()
        if name not in in_files and len(task.eval_docs) > limit
    }


def _aloud(progress: Progress) -> Progress:
    """The same, which says what it says where this process speaks now."""
    out, err = sys.stdout, sys.stderr

    def tell(done: int, total: int) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            progress(done, total)

    return tell


@contextlib.contextmanager
def _unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Put the global random generators and the model's mode back at the end."""
    states = (random.getstate(), np.random.get_state())  # noqa: NPY002
    training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        model.train(training)


def _answers(name: str, outcome: Mapping[str, Any]) -> TaskAnswers:
    row = outcome["results"][name]
    found = {
        key: float(value)
        for key, value in row.items()
        if "," in key and isinstance(value, int | float)
    }
    names = _short_names(list(found))
    metrics = {names[key]: value for key, value in found.items()}
    questions = {
        names[key]: values
        for key, values in _by_question(outcome.get("samples", {}).get(name, [])).items()
        if key in found and np.isclose(np.mean(values), found[key], rtol=1e-9)
    }
    better = outcome["higher_is_better"].get(name, {})
    higher = {
        short: bool(better[key.split(",")[0]])
        for key, short in names.items()
        if better.get(key.split(",")[0]) is not None
    }
    return TaskAnswers(metrics, questions, higher)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """lm-eval's metrics, which it calls `name,filter`, without the filter where there is one."""
    plain = [key.split(",")[0] for key in keys]
    return {
        key: key if plain.count(short) > 1 else short
        for key, short in zip(keys, plain, strict=True)
    }


def _by_question(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Values of single numbers, by metric as lm-eval calls it, in the order of the questions."""
    found: dict[str, list[float]] = {}
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        for metric in sample["metrics"]:
            value = sample.get(metric)
            if isinstance(value, int | float | np.number):
                found.setdefault(f"{metric},{sample['filter']}", []).append(float(value))
    return found
