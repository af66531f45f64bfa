"""Parts of an evaluation: the speed, a text or tasks, of one model."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from common.fingerprint import fingerprint_files
from distill.evaluation import Questions, TaskSet, answer_tasks, named_fingerprint
from experiments.evaluation.config import EvaluateConfig
from experiments.evaluation.measuring.contenders import Contender
from experiments.evaluation.measuring.measured import Measured, TaskScores
from experiments.evaluation.measuring.pieces import Pieces, windows_of
from experiments.evaluation.measuring.speed import Speed, setting_of, timed
from experiments.evaluation.measuring.text_scores import TextScores, scored
from search.space import LatencySetting

TEXT, SPEED = "text", "speed"
"""Kinds of parts; those of tasks are called by them."""
LIBRARIES = ("torch", "transformers", "lm_eval")
"""Whose versions figures depend on."""


@dataclass(frozen=True)
class Asked:
    """All that is measured of every model."""

    config: EvaluateConfig
    """What the user set."""
    device: torch.device
    """Where."""
    pieces: Pieces | None
    """The text, if one is given."""
    tasks: tuple[TaskSet, ...]
    """Each is one part."""
    data: Path | None
    """Questions that were built of the text, where a task file wants some."""
    positions: int
    """Longest sequence that all models take."""

    @cached_property
    def task_keys(self) -> dict[TaskSet, Any]:
        """What the scores of tasks depend on, besides the model."""
        config = self.config
        data = None if self.data is None else fingerprint_files([self.data])
        return {
            tasks: [
                tasks.files_fingerprint if tasks.folders else named_fingerprint(tasks.names),
                data if tasks.uses_data else None,
                config.task_questions if tasks.names else None,
                self.max_length,
                config.corpus_from.bos,
            ]
            for tasks in self.tasks
        }

    @property
    def max_length(self) -> int:
        """Tokens of a question, at most."""
        return self.config.block or self.positions

    def setting(self, contender: Contender) -> LatencySetting:
        """What it is timed with."""
        dtype, positions = contender.dtype, self.positions
        return setting_of(self.config.speed, self.device, dtype, positions=positions)

    def questions(self, tasks: TaskSet) -> Questions:
        """What a part asks."""
        config = self.config
        return Questions(
            tasks,
            self.max_length,
            data=self.data,
            bos=config.corpus_from.bos,
            limit=config.task_questions,
        )


@dataclass(frozen=True)
class Part:
    """A part of the evaluation of one model."""

    kind: str
    """text, speed, or which tasks."""
    depends: Any
    """All that its result depends on."""
    keep: Callable[[Measured, dict[str, Any]], None]
    """Puts a result among the figures of the model."""
    measure: Callable[[PreTrainedModel, Callable[[int, int], None]], dict[str, Any]]
    """Measures it on the loaded model, and tells how far it is."""


def parts_of(asked: Asked, contender: Contender, reference: "Reference") -> Iterator[Part]:
    """What is to be measured of a model, the shortest first."""
    versions = [version(name) for name in LIBRARIES]
    key = [contender.key, versions, asked.device.type]
    if asked.config.speed.seconds > 0:
        setting = asked.setting(contender)
        seconds = asked.config.speed.seconds
        yield Part(
            SPEED,
            [key, setting.fingerprint_parts(), seconds],
            _keep_speed,
            lambda model, tell: timed(model, setting, seconds).to_dict(),
        )
    if asked.pieces is not None:
        yield _text_part(asked.pieces, contender, reference, key=key)
    for tasks in asked.tasks:
        yield _task_part(asked, tasks, contender, key=key)


@dataclass
class Reference:
    """The model that others are compared with, which is loaded when it is first called for."""

    contender: Contender
    """The model."""
    device: torch.device
    """Where it is loaded."""

    @cached_property
    def model(self) -> PreTrainedModel:
        """It."""
        return self.contender.load(self.device)

    def release(self) -> None:
        """Let go of its memory."""
        self.__dict__.pop("model", None)


def _text_part(pieces: Pieces, contender: Contender, reference: Reference, *, key: Any) -> Part:
    other = reference.contender
    compared = contender is not other and contender.same_tokens(other)

    def measure(model: PreTrainedModel, tell: Callable[[int, int], None]) -> dict[str, Any]:
        windows = windows_of(pieces, contender)
        taught = reference.model if compared else None
        return scored(model, windows, reference=taught, progress=tell).to_dict()

    depends = [key, pieces.key, contender.beginning, other.key if compared else None]
    return Part(TEXT, depends, _keep_text, measure)


def _task_part(asked: Asked, tasks: TaskSet, contender: Contender, *, key: Any) -> Part:
    def measure(model: PreTrainedModel, tell: Callable[[int, int], None]) -> dict[str, Any]:
        questions, tokenizer = asked.questions(tasks), contender.tokenizer
        found = answer_tasks(model, tokenizer, questions, progress=tell)
        return {name: asdict(answers) for name, answers in found.items()}

    kind = f"task {tasks.names[0]}" if tasks.names else f"tasks of {tasks.folders[0]}"
    return Part(kind, [key, asked.task_keys[tasks]], _keep_tasks, measure)


def _keep_speed(measured: Measured, found: dict[str, Any]) -> None:
    measured.speed = Speed(**found)


def _keep_text(measured: Measured, found: dict[str, Any]) -> None:
    measured.text = TextScores(**found)


def _keep_tasks(measured: Measured, found: dict[str, Any]) -> None:
    measured.tasks |= {name: TaskScores(**scores) for name, scores in found.items()}
