"""Multiple-choice tasks on a model in memory, through lm-eval's Python API, without a network.

The demo's task is built from held-out documents: which of four lines really comes next.
"""

import contextlib
import copy
import io
import json
import logging
import os
import random
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.data.beginning import beginning_of, missing
from distill.data.settings import AUTO
from distill.errors import DistillError

CHOICES = 4
FEWSHOT_SEED = 1234
"""lm-eval's own default."""
SHORTEST_LINE = 12
"""Characters that a line must have to be a choice; a bracket alone asks nothing."""


def write_next_line_questions(
    texts: list[str],
    path: Path,
    count: int,
    seed: int,
    context_lines: int = 12,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    bos: str = AUTO,
) -> int:
    """Write up to `count` questions as JSON lines: a context, four lines, which one follows it.

    The wrong lines stand elsewhere in the same texts. With `tokenizer` and `max_length`, contexts
    lose lines from their start until they fit with every choice and with what a text begins with
    (`bos`, as in `CorpusFrom`). Returns how many were written.
    """
    generator = random.Random(seed)
    lines = [[line for line in text.splitlines() if line.strip()] for text in texts]
    begins = 0 if tokenizer is None else len(beginning_of(tokenizer, bos))
    places = [
        (rows, at)
        for rows in lines
        for at in range(context_lines, len(rows))
        if len(rows[at].strip()) >= SHORTEST_LINE
    ]
    pool = sorted({rows[at] for rows, at in places})
    questions = []
    if len(pool) >= CHOICES:
        for rows, at in generator.sample(places, min(count, len(places))):
            others = generator.sample(pool, CHOICES)
            choices = [line for line in others if line != rows[at]][: CHOICES - 1]
            answer = generator.randrange(CHOICES)
            choices.insert(answer, rows[at])
            context = rows[at - context_lines : at]
            if tokenizer is not None and max_length is not None:
                context = _fitting(context, choices, tokenizer, max_length - begins)
            text = "".join(line + "\n" for line in context)
            questions.append({"context": text, "choices": choices, "answer": answer})
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return len(questions)


def _fitting(
    context: list[str], choices: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[str]:
    """The longest end of `context`, at least a line, that leaves room for every choice."""
    for start in range(len(context) - 1):
        text = "".join(line + "\n" for line in context[start:])
        wholes = [text + choice for choice in choices]
        rows = tokenizer(wholes, add_special_tokens=False, verbose=False)["input_ids"]
        if max(len(row) for row in rows) <= max_length:
            return context[start:]
    return context[-1:]


def check_tasks(folder: Path) -> None:
    """Raises DistillError for a folder without task files, or with one that is none."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise DistillError(f"the folder of tasks {folder} has no task files (*.yaml)")
    for file in files:
        try:
            task = yaml.safe_load(file.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            reason = str(problem).splitlines()[0]
            raise DistillError(f"the task file {file} is not YAML: {reason}") from problem
        if not isinstance(task, dict) or task.get("task") != file.stem:
            raise DistillError(f"the task file {file} must say 'task: {file.stem}', its own name")


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Path,
    data: Path,
    max_length: int,
    batch: int = 8,
    bos: str = AUTO,
) -> dict[str, dict[str, float]]:
    """Metrics per task of the YAML files in the folder `tasks`, whose `$data` stands for `data`.

    Texts begin as those of a corpus do that is read with `bos` (see `CorpusFrom`).

    lm-eval draws from the global random generators, sets the model to evaluation and may give the
    tokenizer a padding token; none of it outlasts the call. Its `simple_evaluate` is not used: that
    runs git and pip to describe the machine.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as scratch, _unchanged(model), _silent(Path(scratch)):
        names = []
        for file in sorted(tasks.glob("*.yaml")):
            text = string.Template(file.read_text()).safe_substitute(data=str(data))
            (Path(scratch) / file.name).write_text(text)
            names.append(file.stem)
        loaded = TaskManager(include_path=scratch, include_defaults=False).load(names)
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(FEWSHOT_SEED)
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
        beginning = beginning_of(tokenizer, bos)
        asked = _asked(beginning)(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size=batch,
            max_length=max_length,
            prefix_token_id=beginning[-1] if beginning else None,
        )
        outcome: Any = evaluate(asked, loaded, bootstrap_iters=0, log_samples=False)
    return {name: _metrics(outcome["results"][name]) for name in names}


def _asked(beginning: tuple[int, ...]) -> Any:
    """lm-eval's class for models of Hugging Face, with texts that begin with these tokens.

    Its own `add_bos_token` stands for all that a tokenizer adds: also what it puts at the end of a
    text, which then follows the context, and not for a BOS that a tokenizer does not add itself.
    """
    from lm_eval.models.huggingface import HFLM

    class Asked(HFLM):
        rolling = False

        def loglikelihood_rolling(self, *arguments: Any, **options: Any) -> list[float]:
            self.rolling = True
            try:
                found: list[float] = super().loglikelihood_rolling(*arguments, **options)
            finally:
                self.rolling = False
            return found

        def tok_encode(
            self,
            string: str,
            add_special_tokens: bool | None = None,
            left_truncate_len: int | None = None,
            **kwargs: Any,
        ) -> list[int]:
            ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False, **kwargs)
            if self.rolling:  # lm-eval puts its prefix token before the first one itself
                return ids[1:] if ids[:1] == [self.prefix_token_id] else ids
            if add_special_tokens is not False:
                ids = [*missing(beginning, ids), *ids]
            return ids[-left_truncate_len:] if left_truncate_len else ids

        def tok_batch_encode(
            self,
            strings: list[str],
            padding_side: str = "left",
            left_truncate_len: int | None = None,
            truncation: bool = False,
        ) -> tuple[torch.Tensor, torch.Tensor]:
            longest = left_truncate_len or (self.max_length if truncation else None)
            rows = [self.tok_encode(string, left_truncate_len=longest) for string in strings]
            found = self.tokenizer.pad(
                {"input_ids": rows}, padding_side=padding_side, return_tensors="pt"
            )
            return found["input_ids"], found["attention_mask"]

    return Asked


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


@contextlib.contextmanager
def _silent(cache: Path) -> Iterator[None]:
    """Without lm-eval's log lines and progress bars; prepared data sets go to `cache`."""
    from datasets import config

    logger = logging.getLogger("lm_eval")
    level, kept = logger.level, config.HF_DATASETS_CACHE
    logger.setLevel(logging.CRITICAL)
    config.HF_DATASETS_CACHE = cache
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            yield
    finally:
        logger.setLevel(level)
        config.HF_DATASETS_CACHE = kept


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    """lm-eval's metrics, which it calls `name,filter`, without the filter."""
    return {
        key.split(",")[0]: float(value)
        for key, value in row.items()
        if "," in key and isinstance(value, int | float)
    }
