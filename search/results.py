"""What came of a study: the best student, measured on the test split, beside teacher and baselines.

The test split is read here and nowhere else. Everything is measured on checkpoints that were
written and loaded again, in fp32.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distill import Corpus, Evaluation, Targets, evaluate, teacher_cross_entropy
from distill.assets import Assets
from distill.atomic import write_directory_atomically, write_file_atomically
from distill.loading import load
from distill.questions import ContextLimit, write_next_line_questions
from distill.reports import points_to_json
from distill.tasks import TaskFiles, evaluate_tasks
from pruning import Architecture
from search.config import EVIDENCE_FULL, EVIDENCE_NONE
from search.correcting import correction_facts
from search.finals import MEMBER_SEPARATOR, FullPlan, FullResult, FullRun, load_result, uncorrected
from search.prepare import Inputs
from search.proof import require_copied
from search.selection import (
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
    UNCORRECTED,
    UNIFORM,
    Contest,
)
from search.statistics import Interval, difference_interval, mean_interval
from search.student_folder import place_student
from search.workspace import Workspace


@dataclass(frozen=True)
class Measured:
    """One student with all its seeds, measured on the test split."""

    role: str
    architecture: Architecture
    parameters: int
    runs: list[FullResult]
    test: list[Evaluation]

    @property
    def from_scratch(self) -> bool:
        return self.runs[0].run.from_scratch

    def interval(self, metric: str) -> Interval:
        return mean_interval([getattr(evaluation, metric) for evaluation in self.test])

    @property
    def _cut_from(self) -> str:
        if self.from_scratch:
            return "nothing: random weights"
        return self.runs[0].run.source.partition(MEMBER_SEPARATOR)[0] or "teacher"

    def to_dict(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "architecture": self.architecture.to_dict(),
            "parameters": self.parameters,
            "tokens": self.runs[0].tokens,
            "cut_from": self._cut_from,
            "selection_kl": self.runs[0].selection.means()["kl"],
            "curve": points_to_json(self.runs[0].curve),
            "checkpoint": self.test[0].means(),
            "test": {m: self.interval(m).to_dict() for m in ("kl", "ce", "top1_agreement")},
        }


def measure(
    contest: Contest,
    ranking: list[FullRun],
    plan: FullPlan,
    parameters: Callable[[Architecture], int],
    best: Path,
    say: Callable[[str], None],
) -> tuple[list[Measured], dict[str, Measured]]:
    """(winners best first, baselines by name), on the test split.

    The winner's first seed is the checkpoint in `best`. Baselines are those that were distilled in
    full, as far as they came through.
    """
    stage = contest.stage
    most = max(stage.seeds, stage.finalist_seeds)

    def of(run: FullRun) -> Measured | None:
        runs = [replace(run, shuffle=shuffle) for shuffle in range(most)]
        results = [result for each in runs if (result := load_result(each, plan))]
        if not results:
            if stage.evidence == EVIDENCE_FULL:
                say(f"test: {run} has no finished run")
            return None
        models = [result.model for result in results]
        if run == ranking[0]:
            models[0] = best
        test = [_test(model, plan.assets) for model in models]
        shape = run.architecture
        measured = Measured(run.role, shape, parameters(shape), results, test)
        say(f"test: {run}: kl {measured.interval('kl')}")
        return measured

    winners = [measured for run in ranking if (measured := of(run))]
    if stage.evidence == EVIDENCE_NONE:
        return winners, {}
    cut = {one.architecture: one for one in winners if not one.from_scratch}
    named = {UNIFORM: contest.uniform, RANDOM_ARCHITECTURE: contest.random}
    baselines = {
        name: cut.get(shape) or of(contest.run(name, shape))
        for name, shape in named.items()
        if shape is not None
    }
    first = winners[0]
    scratch = contest.scratch(first.architecture)
    if scratch.tokens is not None and scratch.tokens < plan.tokens:
        scratch = replace(scratch, tokens=None)  # one of an earlier start, if there is one
    baselines[RANDOM_INITIALISATION] = first if first.from_scratch else of(scratch)
    return winners, {name: found for name, found in baselines.items() if found}


def _test(model: Path, assets: Assets) -> Evaluation:
    return test_student(model, Corpus(assets.corpus), assets.test_targets, assets.device)


def test_student(model: Path, corpus: Corpus, targets: Path, device: str) -> Evaluation:
    """A written student, loaded again in fp32, on the test split."""
    student = load(model, torch.float32).to(torch.device(device))
    blocks, weights = corpus.blocks("test"), corpus.weights("test")
    return evaluate(student, blocks, targets=Targets(targets), weights=weights)


def correction_result(
    winner: Measured, plan: FullPlan, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """What correcting the teacher brought to it and to the winner; None where it was not corrected.

    The student's gain is in cross-entropy to the test text, since the two teachers differ; it is
    paired over sequences, of one training seed.
    """
    facts = correction_facts(plan.assets.teacher)
    if facts is None:
        return None
    other = load_result(FullRun(UNCORRECTED, winner.architecture), uncorrected(plan))
    if other is None:
        return {"teacher": facts, "student": None}
    without = _test(other.model, plan.assets)
    difference = difference_interval([winner.test[0].ce], [without.ce])
    say(f"test: {UNCORRECTED} {winner.architecture}: cross-entropy {without.means()['ce']:.4f}")
    return {
        "teacher": facts,
        "student": {
            "ce": winner.test[0].means()["ce"],
            "ce_uncorrected": without.means()["ce"],
            "difference": difference.to_dict(),
        },
    }


def correction_verdict(found: dict[str, Any] | None) -> list[str]:
    """The same in words."""
    if found is None:
        return []
    before, after = (found["teacher"][name]["mean"] for name in ("before", "after"))
    lines = [
        f"Teacher correction took the teacher's selection cross-entropy from {before:.4f} to "
        f"{after:.4f}."
    ]
    student = found["student"]
    if student is None:
        return [*lines, "What the student gained is not known: its run without it diverged."]
    gap = student["difference"]
    said = "is better" if gap["high"] < 0 else "is worse" if gap["low"] > 0 else "is no different"
    return [
        *lines,
        f"The winner {said} on test text for it: cross-entropy {student['ce']:.4f} against "
        f"{student['ce_uncorrected']:.4f} of the same shape from the teacher as it was, difference "
        f"{gap['mean']:.4f} [{gap['low']:.4f}, {gap['high']:.4f}].",
    ]


def place_students(
    ranking: list[FullRun], plan: FullPlan, inputs: Inputs, outputs: Workspace
) -> float:
    """Write the winners as stock checkpoints: the first in `best`, the others in `winners`.

    Returns by how many nats at most they answer otherwise, loaded again, than when they were
    measured. Raises SearchStopped where that is more than rounding; that one is not put in place.
    """
    shutil.rmtree(outputs.winners, ignore_errors=True)
    block = Corpus(plan.assets.corpus).blocks("selection")[0]
    differences = []

    def fill(result: FullResult, directory: Path) -> None:
        place_student(result.model, inputs.teacher, directory)
        differences.append(require_copied(directory, result.model, block, result.answers))

    for run, directory in zip(ranking, outputs.winner_folders(len(ranking)), strict=True):
        result = load_result(run, plan)
        assert result is not None, "only finished students are ranked"
        write_directory_atomically(directory, partial(fill, result))
    return max(differences)


def write_facts(winners: list[Measured], outputs: Workspace, provenance: dict[str, Any]) -> None:
    """Write each winner's architecture, scores and provenance beside its weights."""
    for winner, directory in zip(winners, outputs.winner_folders(len(winners)), strict=True):
        facts = json.dumps(winner.to_dict() | {"provenance": provenance}, indent=2)
        write_file_atomically(directory / "espalier.json", facts)


def teacher_figures(assets: Assets) -> dict[str, Any]:
    """The teacher's own cross-entropy on the test split."""
    corpus = Corpus(assets.corpus)
    sequences = len(corpus.blocks("test"))
    weights = corpus.weights("test")
    ce = teacher_cross_entropy(Targets(assets.test_targets), sequences, weights)
    return {"ce": mean_interval([ce]).to_dict()}


def run_tasks(
    inputs: Inputs, corpus: Corpus, best: Path, workspace: Path, say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """lm-eval on winner and teacher with questions from the test documents; {} without tasks."""
    config = inputs.config
    if config.tasks is None:
        return {}
    with tempfile.TemporaryDirectory(dir=workspace) as scratch:
        data = Path(scratch) / "questions.jsonl"
        tokenizer = inputs.teacher.tokenizer
        if not write_next_line_questions(
            corpus.texts("test"),
            data,
            count=config.task_questions,
            seed=config.seed,
            limit=ContextLimit(tokenizer, inputs.block, config.corpus_from.bos),
        ):
            say("tasks: the test documents are too short to build questions from")
            return {}
        results = {}
        for name, model in (
            ("winner", load(best, torch.float32)),
            ("teacher", inputs.teacher.load(torch.device("cpu"), inputs.teacher_dtype)),
        ):
            results[name] = evaluate_tasks(
                model.to(inputs.device),  # type: ignore[arg-type]
                tokenizer,
                tasks=TaskFiles(config.tasks, data),
                max_length=inputs.block,
                bos=config.corpus_from.bos,
            )
            for task, figures in results[name].items():
                shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                say(f"task {task}: {name}: {shown}")
    return results
