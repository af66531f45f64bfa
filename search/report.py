"""The files of a finished study: trials.csv, results.json, best/ with its card, report.html."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from distill import Corpus
from distill.checkpoint import write_file_atomically
from distill.losses import CROSS_ENTROPY
from distill.settings import TrainingSettings
from search.card import shown_shape, write_card
from search.config import SearchConfig
from search.correcting import correction_facts
from search.finals import FullPlan
from search.halving import origin_of
from search.page import render_page
from search.prepare import Inputs
from search.record import FINGERPRINT, FINISHED, Record
from search.results import (
    Measured,
    compare,
    correction_result,
    correction_verdict,
    run_tasks,
    teacher_figures,
    verdicts,
    write_facts,
)
from search.workspace import Workspace

TABLE_COLUMNS = [
    "number",
    "state",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "ffn",
    "experts",
    "expert_ffn",
    "parameters",
    "tokens",
    "kl",
    "ce",
    "top1_agreement",
    "seconds",
    "error",
]


@dataclass(frozen=True)
class Outcome:
    """What came of a study."""

    workspace: Workspace
    results: dict[str, Any]
    """The content of results.json."""


def trials_table(record: Record) -> pd.DataFrame:
    """One row per trial of the study, in the order of their numbers."""
    rows = []
    for trial in record.trials():
        attributes = trial.user_attrs
        row = {
            "number": trial.number,
            "state": trial.state.name,
            **attributes.get("architecture", {}),
        }
        for name in TABLE_COLUMNS[TABLE_COLUMNS.index("parameters") :]:
            row[name] = attributes.get(name)
        rows.append(row)
    table = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    dense = table["experts"].isna().all()
    return table.drop(columns=["experts", "expert_ffn"]) if dense else table


def write_trials(record: Record, path: Path) -> None:
    write_file_atomically(path, trials_table(record).to_csv(index=False))


def finished_outcome(workspace: Workspace, config: SearchConfig, record: Record) -> Outcome | None:
    """The outcome on disk, if it is that of this study and nothing more is asked for."""
    try:
        results = json.loads(workspace.results.read_text())
    except (OSError, ValueError):
        return None
    enough = record.finished() >= config.trials or results["exhausted"]
    same = results["asked"] == _asked(config, record)
    if enough and same and (workspace.best / "config.json").exists():
        return Outcome(workspace, results)
    return None


def _asked(config: SearchConfig, record: Record) -> dict[str, Any]:
    """What a finished outcome must agree with."""
    return {
        "fingerprint": record.study.user_attrs[FINGERPRINT],
        "study": record.study.study_name,
        "finished_trials": record.finished(),
        "winners": config.winners,
        "full_tokens": config.full_tokens,
        "tasks": str(config.tasks),
        "task_questions": config.task_questions,
    }


def write_outcome(
    winners: list[Measured],
    baselines: dict[str, Measured],
    inputs: Inputs,
    training: TrainingSettings,
    plan: FullPlan,
    workspace: Workspace,
    record: Record,
    say: Callable[[str], None],
) -> Outcome:
    """Write every file of the outcome; results.json last, since it marks the study finished."""
    config = inputs.config
    differences = compare(winners, baselines)
    correction = correction_result(winners[0], plan, say)
    provenance = {
        "espalier": _version(),
        "study": config.study,
        "teacher": inputs.teacher.directory.name,
        "teacher_fingerprint": record.study.user_attrs[FINGERPRINT]["teacher"],
        "corpus_fingerprint": record.study.user_attrs[FINGERPRINT]["corpus"],
        "training": record.study.user_attrs[FINGERPRINT]["training"],
        "seed": config.seed,
    }
    write_facts(winners, workspace.best, workspace.winners, provenance)
    teacher = inputs.teacher
    results: dict[str, Any] = {
        "asked": _asked(config, record),
        "exhausted": record.exhausted,
        "teacher": {
            "name": teacher.directory.name,
            "architecture": inputs.space.teacher.to_dict(),
            "parameters": teacher.parameters,
            "test": teacher_figures(plan.assets),
        },
        "budget": {"smallest": inputs.budget.smallest, "largest": inputs.budget.largest},
        "winners": [winner.to_dict() for winner in winners],
        "baselines": {name: baseline.to_dict() for name, baseline in baselines.items()},
        "differences": {name: interval.to_dict() for name, interval in differences.items()},
        "sorted_teacher": plan.assets.sorted_teacher.name,
        "correction": correction,
        "verdicts": verdicts(winners, baselines, differences) + correction_verdict(correction),
        "cost": _cost(winners, baselines, plan, record, inputs),
        "tasks": run_tasks(inputs, workspace.best, workspace.root, say),
        "training": {
            "batch": training.batch,
            "block": inputs.block,
            "precision": inputs.precision,
            "loss": training.loss,
        },
    }
    write_card(workspace.best, results)
    write_trials(record, workspace.trials_table)
    curves = {
        "trials": _trial_curves(record),
        "full": {
            str(run.run): run.curve for m in [*winners, *baselines.values()] for run in m.runs
        },
    }
    write_file_atomically(workspace.report, render_page(results, trials_table(record), curves))
    write_file_atomically(workspace.results, json.dumps(results, indent=2))
    return Outcome(workspace, results)


def _version() -> str:
    try:
        return version("espalier")
    except PackageNotFoundError:
        return "source"


def _trial_curves(record: Record) -> dict[str, Any]:
    curves = {}
    for trial in record.trials():
        if trial.state in FINISHED and trial.user_attrs.get("curve"):
            curves[f"trial {trial.number}"] = {
                "state": trial.state.name,
                "points": trial.user_attrs["curve"],
                "architecture": trial.user_attrs["architecture"],
            }
    return curves


def _cost(
    winners: list[Measured],
    baselines: dict[str, Measured],
    plan: FullPlan,
    record: Record,
    inputs: Inputs,
) -> dict[str, Any]:
    """Tokens and seconds, teacher and search included."""
    corpus = Corpus(plan.assets.corpus)
    latest = {origin_of(t): t for t in sorted(record.trials(), key=lambda t: t.number)}
    full = {run.directory: run for m in [*winners, *baselines.values()] for run in m.runs}
    trials = sum(t.user_attrs.get("tokens", 0) for t in latest.values())
    full_tokens = sum(run.tokens for run in full.values())
    if plan.assets.training_targets is None:  # it ran beside every student, or was not asked
        taught = 0 if plan.assets.training.loss == CROSS_ENTROPY else trials + full_tokens
    else:
        taught = min(plan.tokens, corpus.facts["train_tokens"])
    calibration = min(inputs.config.calibration * corpus.block, corpus.facts["train_tokens"])
    phases = record.study.user_attrs.get("trial_phases", [])
    capacity = sum(phase["seconds"] * phase["slots"] for phase in phases)
    busy = sum(phase["busy_seconds"] for phase in phases)
    return {
        "correction_tokens": (correction_facts(plan.assets.teacher) or {"tokens": 0})["tokens"],
        "teacher_forward_tokens": taught
        + calibration
        + corpus.facts["selection_tokens"]
        + corpus.facts["test_tokens"],
        "trial_tokens": trials,
        "trial_seconds": sum(t.user_attrs.get("seconds", 0.0) for t in latest.values()),
        "full_runs": len(full),
        "full_tokens": full_tokens,
        "full_seconds": sum(run.seconds for run in full.values()),
        "training_share": busy / capacity if capacity else None,
    }


def print_outcome(outcome: Outcome, say: Callable[[str], None]) -> None:
    """The result in a few lines."""
    results, workspace = outcome.results, outcome.workspace
    best = results["winners"][0]
    share = best["parameters"] / results["teacher"]["parameters"]
    kl, ce = best["test"]["kl"]["mean"], best["test"]["ce"]["mean"]
    say(
        f"best: {shown_shape(best['architecture'])}, {best['parameters']:,} parameters "
        f"({share:.1%} of the teacher), test KL {kl:.4f}, cross-entropy {ce:.4f} "
        f"(teacher {results['teacher']['test']['ce']['mean']:.4f})"
    )
    for name, baseline in results["baselines"].items():
        say(f"  {name}: test KL {baseline['test']['kl']['mean']:.4f}")
    for line in results["verdicts"]:
        say(line)
    say(f"checkpoint: {workspace.best}; report: {workspace.report}")
