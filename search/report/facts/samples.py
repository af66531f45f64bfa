"""Samples of what teacher, winner and uniform shrink write after the same beginnings."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from common.errors import reason_of
from distill import Corpus
from distill.backend import load
from distill.evaluation import completions, prompts, text_of
from search.finals.measure import MeasuredStudents
from search.inputs.inputs import Inputs
from search.results.facts import Completion
from search.space.anchors import UNIFORM
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)
TEACHER, WINNER = "teacher", "winner"


def written_samples(
    inputs: Inputs, corpus: Corpus, students: MeasuredStudents, *, outputs: Workspace
) -> list[Completion]:
    """Completions of test documents; none where none are asked for or the documents are too short.

    Of the uniform shrink only where it was distilled in full and is not the winner itself, and
    never of a teacher that is spread over devices, which would take minutes for each.
    """
    config, tokenizer = inputs.config, inputs.teacher.tokenizer
    ids = prompts(
        corpus.texts("test"), tokenizer, count=config.completions, bos=config.corpus_from.bos
    )
    if not len(ids):
        return []
    loaders: dict[str, Callable[[], Any]] = {}
    if not config.spread:
        loaders[TEACHER] = lambda: inputs.teacher.load(inputs.device, inputs.teacher_dtype)
    loaders[WINNER] = lambda: load(outputs.best, torch.float32).to(inputs.device)
    uniform = students.baselines.get(UNIFORM)
    if uniform is not None and uniform is not students.best:
        folder = uniform.runs[0].model
        loaders[UNIFORM] = lambda: load(folder, torch.float32).to(inputs.device)
    written = {}
    for name, loaded in loaders.items():
        LOGGER.info(f"completions: {name}, {len(ids)} of them")
        try:
            written[name] = completions(loaded(), ids, tokenizer)
        except Exception as problem:  # of the type or the memory: it ends nothing
            LOGGER.info(f"completions: {name}: left out ({reason_of(problem)})")
    shown = [text_of(row, tokenizer) for row in ids.tolist()]
    return [Completion(shown[i], _nth(written, i)) for i in range(len(shown))]


def _nth(written: Mapping[str, list[str]], place: int) -> dict[str, str]:
    return {name: texts[place] for name, texts in written.items()}
