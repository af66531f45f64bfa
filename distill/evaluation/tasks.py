"""lm-eval's tasks on a model in memory, through its Python API, without a network."""

import contextlib
import copy
import io
import logging
import os
import random
import string
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import DistillError
from distill.data.chat.beginning import beginning_of, missing
from distill.data.settings import AUTO

FEWSHOT_SEED = 1234
"""lm-eval's own default."""
BATCH = 8
"""Requests of a forward pass."""


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


@dataclass(frozen=True)
class TaskFiles:
    """Tasks that are asked."""

    folder: Path
    """Holds a YAML file per task."""
    data: Path
    """File that `$data` stands for in them."""


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: TaskFiles,
    max_length: int,
    bos: str = AUTO,
) -> dict[str, dict[str, float]]:
    """Metrics by task and name, of texts of at most `max_length` tokens.

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
        for file in sorted(tasks.folder.glob("*.yaml")):
            text = string.Template(file.read_text()).safe_substitute(data=str(tasks.data))
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
            batch_size=BATCH,
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

    class Asked(HFLM):  # type: ignore[misc]  # lm-eval is not annotated
        rolling = False

        def loglikelihood_rolling(self, *arguments: Any, **options: Any) -> list[float]:
            self.rolling = True
            try:
                scores: list[float] = super().loglikelihood_rolling(*arguments, **options)
            finally:
                self.rolling = False
            return scores

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
            padded = self.tokenizer.pad(
                {"input_ids": rows}, padding_side=padding_side, return_tensors="pt"
            )
            return padded["input_ids"], padded["attention_mask"]

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
