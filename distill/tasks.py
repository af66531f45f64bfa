"""Multiple-choice tasks on a model in memory, through lm-eval's Python API, without a network.

The demo's task is built from held-out documents: which of four lines really comes next.
"""

import json
import os
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHOICES = 4


def write_next_line_questions(
    texts: list[str], path: Path, count: int, seed: int, context_lines: int = 12
) -> int:
    """Write up to `count` questions as JSON lines: a context, four lines, which one follows it.

    The wrong lines stand elsewhere in the same texts. Returns how many were written.
    """
    generator = random.Random(seed)
    lines = [[line for line in text.splitlines() if line.strip()] for text in texts]
    lines = [rows for rows in lines if len(rows) > context_lines]
    pool = sorted({row for rows in lines for row in rows if len(row.strip()) >= 12})
    questions = []
    if len(pool) > CHOICES:
        for _ in range(count):
            rows = generator.choice(lines)
            at = generator.randrange(context_lines, len(rows))
            wrong = generator.sample([row for row in generator.sample(pool, CHOICES + 1)], CHOICES)
            wrong = [row for row in wrong if row != rows[at]][: CHOICES - 1]
            place = generator.randrange(CHOICES)
            choices = [*wrong[:place], rows[at], *wrong[place:]]
            context = "\n".join(rows[at - context_lines : at]) + "\n"
            questions.append({"context": context, "choices": choices, "answer": place})
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return len(questions)


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Path,
    data: Path,
    max_length: int,
    batch: int = 8,
) -> dict[str, dict[str, float]]:
    """Results per task of the YAML files in the folder `tasks`, whose `$data` stands for `data`.

    lm-eval reseeds the global random generators and sets the model to evaluation; both are put back.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    was_training = model.training
    folder = data.parent / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for file in sorted(tasks.glob("*.yaml")):
        text = string.Template(file.read_text()).safe_substitute(data=str(data))
        (folder / file.name).write_text(text)
        names.append(file.stem)
    try:
        outcome: dict[str, Any] = simple_evaluate(
            model=HFLM(
                pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=max_length
            ),
            tasks=names,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
            log_samples=False,
            verbosity="ERROR",
        )
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        model.train(was_training)
    return {name: _numbers(outcome["results"][name]) for name in names}


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """lm-eval's figures without its filter suffix, and without what is no number."""
    return {
        key.split(",")[0]: float(value)
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
