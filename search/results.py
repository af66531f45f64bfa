"""What came of a study: the best student, measured on the test split, beside teacher and baselines.

The test split is read here and nowhere else. Everything is measured on checkpoints that were
written and loaded again, in fp32.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from distill import Corpus, Evaluation, Targets, evaluate, teacher_cross_entropy
from distill.checkpoint import write_directory_atomically, write_file_atomically
from distill.corpus import split_texts
from distill.student_run import load
from distill.tasks import evaluate_tasks, write_next_line_questions
from pruning import Architecture
from search.candidate import Assets
from search.correcting import correction_facts
from search.finals import OF, FullPlan, FullResult, FullRun, load_result, uncorrected
from search.prepare import Inputs
from search.selection import (
    CANDIDATE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
    UNCORRECTED,
    UNIFORM,
    Contest,
)
from search.statistics import Interval, difference_interval, mean_interval
from search.teacher import Teacher


@dataclass(frozen=True)
class Measured:
    """One student with all its seeds, measured on the test split."""

    role: str
    architecture: Architecture
    parameters: int
    runs: list[FullResult]
    test: list[Evaluation]

    def interval(self, metric: str) -> Interval:
        return mean_interval([getattr(evaluation, metric) for evaluation in self.test])

    def to_dict(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "architecture": self.architecture.to_dict(),
            "parameters": self.parameters,
            "tokens": self.runs[0].tokens,
            "cut_from": self.runs[0].run.source.partition(OF)[0] or "teacher",
            "selection_kl": self.runs[0].selection.means()["kl"],
            "curve": self.runs[0].curve,
            "checkpoint": self.test[0].means(),
            "test": {m: self.interval(m).to_dict() for m in ("kl", "ce", "top1_agreement")},
        }


def measure(
    contest: Contest,
    order: list[Architecture],
    plan: FullPlan,
    parameters: Callable[[Architecture], int],
    seeds: int,
    finalist_seeds: int,
    best: Path,
    say: Callable[[str], None],
) -> tuple[list[Measured], dict[str, Measured]]:
    """(winners best first, baselines by name), on the test split.

    The winner's first seed is the checkpoint in `best`. A baseline that diverged is left out.
    """
    most = max(seeds, finalist_seeds)

    def of(role: str, shape: Architecture, from_scratch: bool = False) -> Measured | None:
        runs = [
            contest.scratch(shape, shuffle) if from_scratch else contest.run(role, shape, shuffle)
            for shuffle in range(most)
        ]
        results = [result for run in runs if (result := load_result(run, plan))]
        if not results:
            say(f"test: {role} {shape} has no finished run")
            return None
        models = [result.model for result in results]
        if shape == order[0] and not from_scratch:
            models[0] = best
        test = [_test(model, plan.assets) for model in models]
        measured = Measured(role, shape, parameters(shape), results, test)
        say(f"test: {role} {shape}: kl {measured.interval('kl')}")
        return measured

    winners = [measured for shape in order if (measured := of(CANDIDATE, shape))]
    known: dict[Architecture, Measured | None] = {one.architecture: one for one in winners}
    known.setdefault(contest.uniform, None)
    known[contest.uniform] = known[contest.uniform] or of(UNIFORM, contest.uniform)
    baselines = {
        UNIFORM: known[contest.uniform],
        RANDOM_ARCHITECTURE: known.get(contest.random) or of(RANDOM_ARCHITECTURE, contest.random),
        RANDOM_INITIALISATION: of(RANDOM_INITIALISATION, order[0], from_scratch=True),
    }
    return winners, {name: found for name, found in baselines.items() if found}


def _test(model: Path, assets: Assets) -> Evaluation:
    return test_student(model, Corpus(assets.corpus), assets.test_targets, assets.device)


def test_student(model: Path, corpus: Corpus, targets: Path, device: str) -> Evaluation:
    """A written student, loaded again in fp32, on the test split."""
    student = load(model, torch.float32).to(torch.device(device))
    blocks, weights = corpus.blocks("test"), corpus.weights("test")
    return evaluate(student, blocks, Targets(targets), weights=weights)


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


def compare(
    winners: list[Measured], baselines: dict[str, Measured], rivals: bool
) -> dict[str, Interval]:
    """Differences of test KL, winner minus the other, paired; negative: the winner is better.

    With the runner-up only where the winners are `rivals`, not trade-offs of several objectives.
    """
    best = winners[0]
    others = {name: other for name, other in baselines.items() if other is not best}
    if rivals and len(winners) > 1:
        others["runner-up"] = winners[1]
    return {
        name: difference_interval([e.kl for e in best.test], [e.kl for e in other.test])
        for name, other in others.items()
    }


def verdicts(
    winners: list[Measured], baselines: dict[str, Measured], differences: dict[str, Interval]
) -> list[str]:
    """What the figures allow to be said, in words."""
    lines = []
    if UNIFORM not in baselines:
        lines.append("The uniform shrink diverged: there is nothing to hold the winner against.")
    elif UNIFORM not in differences:
        lines.append("The winner is the uniform shrink: the search found nothing better.")
    for name, label in ((UNIFORM, "the uniform shrink"), ("runner-up", "the runner-up")):
        if name not in differences:
            continue
        difference = differences[name]
        if difference.high < 0:
            said = "is better than"
        elif difference.low > 0:
            said = "is worse than"
        else:
            said = "cannot be told apart from"
        lines.append(f"The winner {said} {label}: difference in test KL {difference}.")
    return lines


def place_students(
    contest: Contest,
    order: list[Architecture],
    plan: FullPlan,
    inputs: Inputs,
    best: Path,
    folder: Path,
) -> None:
    """Write the winners as stock checkpoints: the first in `best`, the others in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    for rank, shape in enumerate(order, 1):
        result = load_result(contest.run(CANDIDATE, shape), plan)
        assert result is not None, "only finished students are ordered"
        model = result.model

        fill = partial(place_student, model, inputs.teacher)
        write_directory_atomically(best if rank == 1 else folder / f"{rank}", fill)


def place_student(model: Path, teacher: Teacher, directory: Path) -> None:
    """Copy a trained model into `directory`, with the teacher's tokenizer and generation config."""
    shutil.copytree(model, directory, dirs_exist_ok=True)
    teacher.tokenizer.save_pretrained(directory)
    generation = teacher.directory / "generation_config.json"
    if generation.exists():
        shutil.copy(generation, directory)


def write_facts(
    winners: list[Measured], best: Path, folder: Path, provenance: dict[str, Any]
) -> None:
    """Write each winner's architecture, scores and provenance beside its weights."""
    for rank, winner in enumerate(winners, 1):
        facts = json.dumps(winner.to_dict() | {"provenance": provenance}, indent=2)
        directory = best if rank == 1 else folder / f"{rank}"
        write_file_atomically(directory / "espalier.json", facts)


def teacher_figures(assets: Assets) -> dict[str, Any]:
    """The teacher's own cross-entropy on the test split."""
    corpus = Corpus(assets.corpus)
    sequences = len(corpus.blocks("test"))
    weights = corpus.weights("test")
    ce = teacher_cross_entropy(Targets(assets.test_targets), sequences, weights)
    return {"ce": mean_interval([ce]).to_dict()}


def run_tasks(
    inputs: Inputs, best: Path, workspace: Path, say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """lm-eval on winner and teacher with questions from the test documents; {} without tasks."""
    config = inputs.config
    if config.tasks is None:
        return {}
    texts = split_texts(inputs.documents, config.splits)["test"]
    with tempfile.TemporaryDirectory(dir=workspace) as scratch:
        data = Path(scratch) / "questions.jsonl"
        tokenizer = inputs.teacher.tokenizer
        if not write_next_line_questions(
            texts,
            data,
            config.task_questions,
            config.seed,
            tokenizer=tokenizer,
            max_length=inputs.block,
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
                config.tasks,
                data,
                inputs.block,
            )
            for task, figures in results[name].items():
                shown = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                say(f"task {task}: {name}: {shown}")
    return results
