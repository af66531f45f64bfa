"""What came of a family: one line per member, what all of them cost, and family.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.atomic import write_file_atomically
from search.card import shown_interval, shown_shape
from search.config import EVIDENCE_NONE
from search.report import Outcome


def write_family(root: Path, outcomes: list[Outcome], say: Callable[[str], None]) -> None:
    """Write family.json into `root` and say what is in it."""
    members = [_member(outcome) for outcome in outcomes]
    costs: dict[str, float] = {}
    for outcome in outcomes:
        for name, amount in outcome.results["ledger"]["total"].items():
            costs[name] = costs.get(name, 0.0) + amount
    write_file_atomically(
        root / "family.json", json.dumps({"members": members, "total": costs}, indent=2)
    )
    say(f"family of {len(members)}, each in {root / 'family'}:")
    for member in members:
        say(
            f"  {member['name']}: {shown_shape(member['architecture'])}, "
            f"{member['parameters']:,} parameters, test KL {shown_interval(member['kl'])}, "
            f"uniform shrink {member['uniform_kl']}, cut from {member['cut_from']}"
        )
    say(
        f"family cost: {costs['tokens']:,.0f} tokens, {costs['flops']:.3g} FLOPs (students "
        f"{costs['student_flops']:.3g}, teacher {costs['teacher_flops']:.3g}, evaluation "
        f"{costs['evaluation_flops']:.3g}), {costs['seconds']:,.0f} device-seconds"
    )


def _member(outcome: Outcome) -> dict[str, Any]:
    results = outcome.results
    best = results["winners"][0]
    return {
        "name": results["member"],
        "architecture": best["architecture"],
        "parameters": best["parameters"],
        "tokens": best["tokens"],
        "cut_from": best["cut_from"],
        "kl": best["test"]["kl"],
        "ce": best["test"]["ce"],
        "uniform_kl": _uniform_kl(results),
        "scratch": results["scratch"],
        "ledger": results["winner_ledgers"][0],
    }


def _uniform_kl(results: dict[str, Any]) -> str:
    """After a full run, or else after a short one, which says so."""
    name = "uniform shrink"
    if name in results["baselines"]:
        return shown_interval(results["baselines"][name]["test"]["kl"])
    short = results.get("short", {"selection_kl": {}})  # of an older version: none
    if name not in short["selection_kl"]:
        return "not run" if results.get("evidence") == EVIDENCE_NONE else "diverged"
    kl = short["selection_kl"][name]["mean"]
    return f"{kl:.4f} (selection split, after {short['tokens']:,} tokens)"
