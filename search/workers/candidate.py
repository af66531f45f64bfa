"""Candidate in training, on its worker's side: cut, distilled, scored, resumable.

Trials and full runs are the same thing with other numbers. Knows nothing of Ray or Optuna.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from common.errors import SearchStopped
from common.signals import parent_watch
from distill.backend import ALONE, World
from distill.evaluation import Questions, evaluate_tasks
from distill.recipes import Assets, ResumableRun, RunCallbacks, RunReport
from distill.train import Distillation, RunLimits
from pruning import Architecture
from workspace.sorted_teacher import SortedTeacher


@dataclass(frozen=True, kw_only=True)
class SearchAssets(Assets):
    """Assets of all runs of a study, with the model that their students are cut out of."""

    sorted_teacher: Path
    """The sorted teacher, or a sorted student that smaller ones are cut out of."""
    library: Path | None = None
    """Trained blocks for students whose layers differ; None: theirs are cut out of the sorted
    teacher."""

    @property
    def source(self) -> SortedTeacher:
        """What students are cut out of."""
        return SortedTeacher(self.sorted_teacher, self.library)


@dataclass(frozen=True)
class TaskQuestions:
    """Tasks of lm-eval whose scores are objectives."""

    wanted: tuple[tuple[str, str, str], ...]
    """(objective, task, metric); the task's first metric where none is named."""
    questions: Questions
    """What is asked, with questions from documents of the selection split."""

    def scores(self, model: PreTrainedModel, tokenizer_of: Path) -> dict[str, float]:
        """By objective."""
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
        found = evaluate_tasks(model, tokenizer, self.questions)
        scores = {}
        for name, task, metric in self.wanted:
            if metric and metric not in found[task]:
                raise SearchStopped(
                    f"the task {task} has no metric {metric}; it has {', '.join(found[task])}"
                )
            scores[name] = found[task][metric or next(iter(found[task]))]
        return scores


@dataclass(frozen=True)
class Job:
    """One student to train."""

    name: str
    """Readable, such as trial-0012."""
    architecture: Architecture
    """Shape of the student."""
    limits: RunLimits
    """How long the run is, how often it is evaluated, and where it is kept."""
    shuffle: int = 0
    """Order of the tokens; 0 is the study's."""
    from_scratch: bool = False
    """Random initialisation instead of a cut."""
    tasks: TaskQuestions | None = None
    """Tasks whose scores are objectives of the search, asked at the end of the run."""

    def __str__(self) -> str:
        return f"{self.name} {self.architecture}"


def build_student(assets: SearchAssets, job: Job) -> PreTrainedModel:
    """The student before its first step, in fp32."""
    source = assets.source
    if not job.from_scratch:
        return source.cut(job.architecture)
    torch.manual_seed(assets.seed)
    config = source.config_of(job.architecture)
    student: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return student


class CandidateRun(ResumableRun):
    """A trial or full run as a worker sees it, from its first step or from its checkpoint."""

    def __init__(
        self,
        assets: SearchAssets,
        job: Job,
        world: World = ALONE,
        *,
        after_save: Callable[[], None] = lambda: None,
    ):
        """Every process of `world` makes one; `after_save` is called after each checkpoint, such as
        to bring it elsewhere."""
        self.job, self.assets, self.world, self.after_save = job, assets, world, after_save
        super().__init__(
            self._build,
            job.limits,
            selection=assets.held_out(),
            callbacks=RunCallbacks(before_save=parent_watch()),
        )

    def _build(self) -> Distillation:
        assets = self.assets
        device: Any = torch.device(assets.device)
        student: Any = build_student(assets, self.job)
        return Distillation(
            student.to(device),
            replace(assets.training_data(), shuffle=self.job.shuffle),
            training=assets.training,
            tokens=self.job.limits.tokens,
            world=self.world,
        )

    def _saved(self) -> None:
        self.after_save()

    def result(self) -> RunReport:
        """With, at the end, the selection KL of each sequence and the scores of tasks."""
        report = super().result()
        if not report.done:
            return report
        selection = self.selection or self.evaluate()
        scores: dict[str, float] = {}
        if self.job.tasks is not None:
            with self.distillation.averaged():
                student = self.distillation.student
                scores = self.job.tasks.scores(student, self.assets.teacher)
        return replace(
            report,
            kl_sequences=selection.kl.round(6).tolist(),
            scores=tuple(scores.items()),
        )
