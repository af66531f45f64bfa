"""The model card of the winner: what it is, what was measured, how to load it."""

from pathlib import Path
from string import Template
from typing import Any

from distill.checkpoint import write_file_atomically
from pruning import Architecture

CARD = Template("""---
library_name: transformers
pipeline_tag: text-generation
tags: [espalier, pruned, distilled]
---
# $title

Cut out of `$teacher` ($teacher_parameters parameters) and distilled by Espalier: $shape,
$parameters parameters ($share of the teacher).

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("DIR")
tokenizer = AutoTokenizer.from_pretrained("DIR")
```

## Measured

On the study's test split, which was read once, in fp32. This checkpoint, loaded again: KL to the
teacher $kl, cross-entropy $ce nats per token, top-1 agreement $agreement. Beside teacher and
baselines, means over the training seeds with 95 % intervals over sequences and seeds:

| | parameters | KL to the teacher | cross-entropy | top-1 agreement |
|---|---|---|---|---|
$rows

$verdicts

$tasks
Distilled with $loss on $tokens tokens. Architecture, scores and provenance are in
`espalier.json`.
""")


def write_card(directory: Path, results: dict[str, Any]) -> None:
    """Write README.md beside the winner's weights."""
    best, teacher = results["winners"][0], results["teacher"]
    shape = shown_shape(best["architecture"])
    text = CARD.substitute(
        title=f"{teacher['name']} as {shape}",
        teacher=teacher["name"],
        teacher_parameters=f"{teacher['parameters']:,}",
        shape=shape,
        kl=f"{best['checkpoint']['kl']:.4f}",
        ce=f"{best['checkpoint']['ce']:.4f}",
        agreement=f"{best['checkpoint']['top1_agreement']:.4f}",
        loss=results["training"]["loss"],
        parameters=f"{best['parameters']:,}",
        share=f"{best['parameters'] / teacher['parameters']:.1%}",
        rows="\n".join("| " + " | ".join(row) + " |" for row in result_rows(results)),
        verdicts="\n".join(results["verdicts"]),
        tasks=_tasks(results["tasks"]),
        tokens=f"{best['tokens']:,}",
    )
    write_file_atomically(directory / "README.md", text)


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
