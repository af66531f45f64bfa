"""The tables of `calibration.py`: how orders agree, and what the students cut by them are worth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t

from experiments.benchmarks.pruning.calibration_samples import Samples, agreements
from workspace.importance import LAYERS, WIDTH

PASSES = {WIDTH: "widths and block influence", LAYERS: "layers left out"}
"""Kind of pass -> what it scores."""
LEVEL = 0.95
"""Of the intervals."""


def agreement_table(samples: Samples) -> str:
    """Correlation and overlap by part, and seconds of a process with one thread, by the number of
    sequences."""
    sizes = samples.sizes
    lines = [
        "| correlation, kept alike | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    against = ("another sample as large", "the most of another sample")
    for part, by_size in agreements(samples).items():
        for place, words in enumerate(against):
            cells = [
                f"{by_size[size][place].correlation:.3f}, {by_size[size][place].overlap:.0%}"
                if size in by_size
                else ""
                for size in sizes
            ]
            lines.append(f"| {part}: {words} | " + " | ".join(cells) + " |")
    for kind, words in PASSES.items():
        most = samples.most[kind]
        cells = [f"{samples.seconds(kind, size):.1f}" if size <= most else "" for size in sizes]
        lines.append(f"| seconds, {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def student_table(rows: Sequence[Mapping[str, Any]], group: str) -> str:
    """KL by number of sequences, with intervals over the samples; and less that of the most
    sequences, sample by sample."""
    own = [row for row in rows if row["group"] == group]
    sizes = sorted({row["sequences"] for row in own})
    if not own:
        return f"No {group} cut was measured."
    after = {(row["sequences"], row["sample"]): row["kl_after"] for row in own}
    lines = [
        f"{group} cut, {own[0]['architecture']}, {own[0]['tokens']:,} tokens of distillation\n",
        "| sequences | KL after the cut | after distillation | less that of the most | samples |",
        "|---|---|---|---|---|",
    ]
    for size in sizes:
        chosen = [row for row in own if row["sequences"] == size]
        less = [
            row["kl_after"] - after[sizes[-1], row["sample"]]
            for row in chosen
            if size != sizes[-1] and (sizes[-1], row["sample"]) in after
        ]
        lines.append(
            f"| {size:,} | {with_interval([row['kl_before'] for row in chosen], digits=3)} "
            f"| {with_interval([row['kl_after'] for row in chosen], digits=4)} "
            f"| {with_interval(less, digits=4, sign='+')} | {len(chosen)} |"
        )
    return "\n".join(lines)


def with_interval(values: Sequence[float], *, digits: int, sign: str = "") -> str:
    """The mean, with half the width of its interval by Student's t; nothing of no values."""
    if not values:
        return ""
    count, mean = len(values), sum(values) / len(values)
    text = f"{mean:{sign}.{digits}f}"
    if count < 2:
        return text
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
    return f"{text} ± {half:.{digits}f}"
