"""What the model cards of each command say, and figures as they are shown in several places."""

from collections.abc import Mapping
from math import exp
from pathlib import Path
from string import Template
from typing import Any

from pruning import Architecture
from search.model_card import Card, Origin, write_model_card

STUDY = Template("""
Cut out of `$teacher` ($teacher_parameters parameters) and distilled by Espalier: $shape,
$parameters parameters ($share of the teacher). $place

## Measured

On the study's test split, which was read once, in fp32. This checkpoint, loaded again: KL to the
teacher $kl, cross-entropy $ce nats per token, top-1 agreement $agreement. Beside teacher and
baselines, means over the training seeds with 95 % intervals over sequences and seeds:

| | parameters | KL to the teacher | cross-entropy | top-1 agreement |
|---|---|---|---|---|
$rows

$verdicts

$tasks
$engines
Distilled with $loss on $tokens tokens. Architecture, scores and provenance are in
`espalier.json`.
""")
CUT = Template("""
Cut out of `$teacher` by Espalier and **not trained since**: $shape, $parameters parameters. Layers
that were kept, counted from 0: $layers. Distil it before use; `prune.json` says how it was cut.
$measured
$engines""")
DISTILLED = Template("""
`$student` ($parameters parameters), distilled from `$teacher` ($teacher_parameters parameters) by
Espalier on $tokens tokens of `$corpus`.

## Measured

On held-out text in fp32, with 95 % intervals over sequences, one training seed:

| | before | after |
|---|---|---|
$rows
""")
CUT_MEASURED = Template("""
On held-out text of `$corpus`: KL to the teacher $kl nats per token, perplexity $perplexity (the
teacher's is $teacher_perplexity), top-1 agreement $agreement.
""")


def write_card(directory: Path, results: dict[str, Any], origin: Origin, rank: int = 0) -> None:
    """Write README.md beside the weights of a study's winner, the best being that of rank 0."""
    student, teacher = results["winners"][rank], results["teacher"]
    shape = shown_shape(student["architecture"])
    figures = student["checkpoint"]
    text = STUDY.substitute(
        teacher=teacher["name"],
        teacher_parameters=f"{teacher['parameters']:,}",
        shape=shape,
        kl=f"{figures['kl']:.4f}",
        ce=f"{figures['ce']:.4f}",
        agreement=f"{figures['top1_agreement']:.4f}",
        loss=results["training"]["loss"],
        parameters=f"{student['parameters']:,}",
        share=f"{student['parameters'] / teacher['parameters']:.1%}",
        place=f"It is candidate {rank + 1} of its study." if rank else "",
        rows="\n".join("| " + " | ".join(row) + " |" for row in result_rows(results)),
        verdicts="\n".join(results["verdicts"]),
        tasks=_tasks(results["tasks"]) if rank == 0 else "",
        engines=_engines(results["engines"]) if rank == 0 else "",
        tokens=f"{student['tokens']:,}",
    )
    title = f"{teacher['name']} as {shape}"
    card = Card(title, text, ("pruned", "distilled"), _with_perplexity(figures))
    write_model_card(directory, card, origin)


def write_cut_card(directory: Path, facts: dict[str, Any], origin: Origin) -> None:
    """Write README.md beside the weights of a student that run_prune cut, from its prune.json."""
    shape, test = shown_shape(facts["architecture"]), facts.get("test")
    figures, measured = {}, ""
    if test:
        names = {"kl": "zero_shot_kl", "perplexity": "perplexity"}
        figures = {name: test[theirs] for name, theirs in names.items()}
        figures["top1_agreement"] = test["top1_agreement"]
        measured = CUT_MEASURED.substitute(
            corpus=origin.corpus,
            kl=f"{test['zero_shot_kl']:.4f}",
            perplexity=f"{test['perplexity']:,.2f}",
            teacher_perplexity=f"{test['teacher_perplexity']:,.2f}",
            agreement=f"{test['top1_agreement']:.4f}",
        )
    text = CUT.substitute(
        teacher=origin.teacher,
        shape=shape,
        parameters=f"{facts['parameters']:,}",
        layers=", ".join(map(str, facts["kept_layers"])),
        measured=measured,
        engines=_engines(facts["engines"]),
    )
    write_model_card(
        directory, Card(f"{origin.teacher} as {shape}", text, ("pruned",), figures), origin
    )


def write_distilled_card(directory: Path, found: dict[str, Any], origin: Origin) -> None:
    """Write README.md beside a student that run_distill trained, from its distill.json."""
    student, teacher = found["student"], found["teacher"]
    names = {"kl": "KL to the teacher", "ce": "cross-entropy", "top1_agreement": "top-1 agreement"}
    rows = [
        f"| {shown} | {shown_interval(found['before'][name])} | "
        f"{shown_interval(found['after'][name])} |".replace(" *", "")
        for name, shown in names.items()
    ]
    text = DISTILLED.substitute(
        student=student["name"],
        parameters=f"{student['parameters']:,}",
        teacher=origin.teacher,
        teacher_parameters=f"{teacher['parameters']:,}",
        tokens=f"{found['tokens']:,}",
        corpus=origin.corpus,
        rows="\n".join(rows),
    )
    figures = _with_perplexity({name: found["after"][name]["mean"] for name in names})
    title = f"{student['name']}, distilled from {origin.teacher}"
    write_model_card(directory, Card(title, text, ("distilled",), figures), origin)


def _engines(verdicts: list[dict[str, Any]]) -> str:
    """What serves the checkpoint, by the rules of the engines' versions that were tried or read."""
    rows = ["| engine | takes this checkpoint | |", "|---|---|---|"]
    for one in verdicts:
        said = "yes" if one["takes"] else "no"
        rows.append(f"| {one['version']} | {said} | {one['reason']} |")
    return "\n".join(["## What serves it", "", *rows, ""])


def _with_perplexity(figures: Mapping[str, float]) -> dict[str, float]:
    return {**figures, "perplexity": exp(min(figures["ce"], 700.0))}


def shown_shape(shape: dict[str, int]) -> str:
    return str(Architecture.from_dict(shape))


def shown_interval(interval: dict[str, Any]) -> str:
    note = "" if interval["seed_noise_included"] else " *"
    return f"{interval['mean']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]{note}"


def result_rows(results: dict[str, Any]) -> list[list[str]]:
    """Name, parameters, KL, cross-entropy, agreement: teacher, winners, baselines."""
    teacher = results["teacher"]
    ce = shown_interval(teacher["test"]["ce"]).removesuffix(" *")
    rows = [["teacher", f"{teacher['parameters']:,}", "0", ce, "1"]]
    named = [
        ("winner" if rank == 0 else f"candidate {rank + 1}", winner)
        for rank, winner in enumerate(results["winners"])
    ]
    named += list(results["baselines"].items())
    for name, student in named:
        label = f"{name}: {shown_shape(student['architecture'])}"
        figures = [shown_interval(student["test"][m]) for m in ("kl", "ce", "top1_agreement")]
        rows.append([label, f"{student['parameters']:,}", *figures])
    rows.append(["\\* one seed: seed noise not included", "", "", "", ""])
    return rows


def _tasks(tasks: dict[str, Any]) -> str:
    if not tasks:
        return ""
    lines = ["| task | metric | winner | teacher |", "|---|---|---|---|"]
    for task, figures in tasks["winner"].items():
        for metric, value in figures.items():
            lines.append(
                f"| {task} | {metric} | {value:.4f} | {tasks['teacher'][task][metric]:.4f} |"
            )
    return "\n".join(lines) + "\n"
