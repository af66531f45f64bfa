"""The files of a finished study: trials.csv, results.json, best/ with its card, report.html."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from distill import Corpus
from distill.atomic import write_file_atomically
from distill.reports import points_to_json
from pruning import Architecture, Checkpoint, Verdict, engines_line, engines_of
from search.accounts import Accounts, candidate_scores, front_facts
from search.card import shown_shape, write_card
from search.config import EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT, SearchConfig
from search.fidelity import rank_fidelity
from search.fidelity import rows as fidelity_rows
from search.fidelity import warnings as fidelity_warnings
from search.model_card import Origin, shown_name
from search.page import render_page
from search.record import FINGERPRINT, FINISHED, Record, progress_of
from search.results import (
    correction_result,
    correction_verdict,
    run_tasks,
    teacher_figures,
    write_facts,
)
from search.selection import chances
from search.verdicts import WINNER, Comparison, Searched, verdicts
from search.winner_costs import cost_lines, winner_costs
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
    "contiguous",
    "parameters",
    "zero_shot",
    "tokens",
    "kl",
    "ce",
    "top1_agreement",
    "seconds",
    "error",
]

DISTRIBUTION = "espalier-nas"
SELDOM = ("experts", "expert_ffn", "contiguous", "zero_shot")
"""Columns that are left out where no trial has a value."""


@dataclass(frozen=True)
class Outcome:
    """What came of the search for one student."""

    workspace: Workspace
    """Where its files are."""
    results: dict[str, Any]
    """The content of results.json."""

    @property
    def winner(self) -> Architecture:
        return Architecture.from_dict(self.results["winners"][0]["architecture"])


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
        figures = {**attributes, **progress_of(trial)}
        for name in TABLE_COLUMNS[TABLE_COLUMNS.index("parameters") :]:
            row[name] = figures.get(name)
        if record.objectives.several and trial.values:
            row |= dict(zip(record.objectives.names, trial.values, strict=True))
        rows.append(row)
    extra = [name for name in record.objectives.names if name not in TABLE_COLUMNS]
    table = pd.DataFrame(rows, columns=[*TABLE_COLUMNS, *extra])
    unused = [name for name in SELDOM if table[name].isna().all()]
    return table.drop(columns=unused)


def write_trials(record: Record, path: Path) -> None:
    write_file_atomically(path, trials_table(record).to_csv(index=False))


def finished_outcome(workspace: Workspace, config: SearchConfig, record: Record) -> Outcome | None:
    """The outcome on disk, if it is that of this study and nothing more is asked for."""
    try:
        results = json.loads(workspace.results.read_text())
    except (OSError, ValueError):
        return None
    enough = record.finished() >= config.trials or results["exhausted"]
    same = covers(results["asked"], _asked(config, record))
    if enough and same and (workspace.best / "config.json").exists():
        return Outcome(workspace, results)
    return None


def covers(known: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether an outcome holds what is asked for, or more of it.

    One of before --evidence had all of it, and its seeds stand in its fingerprint.
    """
    known = {"evidence": EVIDENCE_FULL, "seeds": known["fingerprint"].get("seeds"), **known}
    more = all(known[name] >= asked[name] for name in ("winners", "seeds"))
    evidence = (EVIDENCE_NONE, EVIDENCE_SHORT, EVIDENCE_FULL)
    stronger = evidence.index(known["evidence"]) >= evidence.index(asked["evidence"])
    counted = ("winners", "seeds", "evidence")
    rest = [{k: v for k, v in each.items() if k not in counted} for each in (known, asked)]
    return more and stronger and rest[0] == rest[1]


def _asked(config: SearchConfig, record: Record) -> dict[str, Any]:
    """What a finished outcome must agree with."""
    return {
        "fingerprint": record.study.user_attrs[FINGERPRINT],
        "study": record.study.study_name,
        "finished_trials": record.finished(),
        "winners": config.winners,
        "evidence": config.evidence,
        "seeds": config.full_seeds,
        "full_tokens": config.full_tokens,
        "scratch_tokens": config.scratch_tokens,
        "ties": config.ties,
        "finalist_seeds": config.finalist_seeds,
        "tasks": str(config.tasks),
        "task_questions": config.task_questions,
    }


def write_outcome(accounts: Accounts, outputs: Workspace, say: Callable[[str], None]) -> Outcome:
    """Write every file of the outcome; results.json last, since it marks the study finished."""
    facts, inputs = accounts.facts, accounts.inputs
    record, plan, config = facts.record, facts.plan, inputs.config
    winners, baselines = accounts.winners, accounts.baselines
    recorded = record.study.user_attrs[FINGERPRINT]
    provenance = {
        "espalier": _version(),
        "study": config.study,
        "teacher": shown_name(config.teacher),
        "teacher_fingerprint": recorded["teacher"],
        "corpus_fingerprint": recorded["corpus"],
        "training": recorded["training"],
        "seed": config.seed,
    }
    write_facts(winners, outputs, provenance)
    comparison = Comparison.of(facts.contest, winners, baselines, plan)
    searched = Searched.of(record, config.trials)
    correction = correction_result(winners[0], plan, say)
    results: dict[str, Any] = {
        "asked": _asked(config, record),
        "exhausted": record.exhausted,
        "member": facts.member.name,
        "teacher": {
            "name": shown_name(config.teacher),
            "architecture": inputs.space.teacher.to_dict(),
            "parameters": inputs.teacher.parameters,
            "test": teacher_figures(plan.assets),
        },
        "budget": str(facts.member.budget),
        "winners": [winner.to_dict() for winner in winners],
        "baselines": {name: baseline.to_dict() for name, baseline in baselines.items()},
        "evidence": config.evidence,
        **comparison.to_dict(),
        "searched": searched.to_dict(),
        "sorted_teacher": plan.assets.sorted_teacher.name,
        "correction": correction,
        **_accounted(accounts, say),
        "engines": [asdict(verdict) for verdict in engines_of(Checkpoint(outputs.best).config)],
        "tasks": run_tasks(inputs, Corpus(plan.assets.corpus), outputs.best, outputs.root, say),
        "training": {
            "batch": plan.assets.training.batch,
            "block": inputs.block,
            "precision": inputs.precision,
            "loss": plan.assets.training.loss,
        },
    }
    results["verdicts"] = [
        *verdicts(comparison),
        *searched.verdicts(),
        *correction_verdict(correction),
        *_scratch_verdict(results["scratch"]),
        *results["fidelity_warnings"],
    ]
    origin = Origin.of({config.teacher: inputs.teacher.directory}, config.corpus)
    for rank, directory in enumerate(outputs.winner_folders(len(winners))):
        write_card(directory, results, origin, rank)
    write_trials(record, outputs.trials_table)
    page = render_page(results, trials_table(record), _curves(accounts))
    write_file_atomically(outputs.report, page)
    write_file_atomically(outputs.results, json.dumps(results, indent=2))
    return Outcome(outputs, results)


def _scratch_verdict(found: dict[str, Any] | None) -> list[str]:
    """What random weights need to come as far as the winner, where the run was long enough to say
    something of it."""
    if found is None or not (found["reached"] or found["tokens_ratio"] > 1):
        return []
    text: str = found["text"]
    return [text[0].upper() + text[1:] + "."]


def _accounted(accounts: Accounts, say: Callable[[str], None]) -> dict[str, Any]:
    """What the study cost, how well its scores predict, its trade-offs, the winners' costs."""
    ledger = accounts.ledger()
    fidelity = rank_fidelity(candidate_scores(accounts.facts), accounts.facts.record.rungs.tokens)
    scratch = accounts.scratch(ledger)
    return {
        "ledger": ledger.to_dict(),
        "winner_ledgers": [accounts.of_winner(w, ledger).to_dict() for w in accounts.winners],
        "training_share": _training_share(accounts.facts.record),
        "scratch": None if scratch is None else scratch.to_dict(),
        "chances": chances(accounts.facts.record),
        "fidelity": [pair.to_dict() for pair in fidelity],
        "fidelity_rows": fidelity_rows(fidelity),
        "fidelity_warnings": fidelity_warnings(fidelity),
        "front": front_facts(accounts.facts.record),
        "costs": winner_costs(accounts, say),
    }


def _training_share(record: Record) -> float | None:
    """Share of the slots' time during the trials that went into training and evaluation."""
    phases = record.study.user_attrs.get("trial_phases", [])
    capacity = sum(phase["seconds"] * phase["slots"] for phase in phases)
    return sum(phase["busy_seconds"] for phase in phases) / capacity if capacity else None


def _curves(accounts: Accounts) -> dict[str, Any]:
    students = [*accounts.winners, *accounts.baselines.values()]
    full = {str(run.run): points_to_json(run.curve) for student in students for run in student.runs}
    return {"trials": _trial_curves(accounts.facts.record), "full": full}


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "source"


def _trial_curves(record: Record) -> dict[str, Any]:
    return {
        f"trial {trial.number}": {
            "state": trial.state.name,
            "points": progress_of(trial)["curve"],
            "architecture": trial.user_attrs["architecture"],
        }
        for trial in record.trials(*FINISHED)
        if progress_of(trial)
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
    for line in short_lines(results):
        say(f"  {line}")
    for line in [*results["verdicts"], *cost_lines(results["costs"]), *front_lines(results)]:
        say(line)
    if found := results.get("engines"):  # earlier versions did not ask
        say(engines_line([Verdict(**verdict) for verdict in found]))
    total = results["ledger"]["total"]
    say(
        f"cost: {total['tokens']:,.0f} tokens, {total['flops']:.3g} FLOPs (students "
        f"{total['student_flops']:.3g}, teacher {total['teacher_flops']:.3g}, evaluation "
        f"{total['evaluation_flops']:.3g}), {total['seconds']:,.0f} device-seconds"
    )
    say(f"checkpoint: {workspace.best}; report: {workspace.report}")


def short_lines(results: dict[str, Any]) -> list[str]:
    """What the baselines that were not distilled in full came to after the short run."""
    found = results.get("short", {"selection_kl": {}})  # of an older version: none
    kls = found["selection_kl"]
    return [
        f"{name if name != WINNER else 'architecture of the winner'}: selection KL "
        f"{kl['mean']:.4f} after {found['tokens']:,} tokens"
        for name, kl in kls.items()
        if len(kls) > 1
    ]


def front_lines(results: dict[str, Any]) -> list[str]:
    """The trade-offs in a few lines; none with one objective."""
    found = results["front"]
    if found is None:
        return []
    lines = [f"front of {', '.join(found['objectives'])}, {len(found['front'])} architectures:"]
    for point in found["front"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in point["values"].items())
        mark = "  <- knee" if point["trial"] == found["knee"]["trial"] else ""
        lines.append(f"  {shown_shape(point['architecture'])}: {values}{mark}")
    return lines
