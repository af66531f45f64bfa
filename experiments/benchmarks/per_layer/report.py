"""Tables of the benchmark, as JSON and as Markdown."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from common.intervals import Interval, difference_interval, mean_interval
from experiments.benchmarks.per_layer.arms import UNIFORM, Arm
from experiments.benchmarks.per_layer.runs import Measured
from experiments.benchmarks.per_layer.setting import COSTS, SOURCES, Limit
from search.library import BlockError
from search.space import CostModel

WORDS = {
    "largest": "most parameters",
    "no-ops": "no-ops only",
}
"""Names of controls in words, where they are not."""


@dataclass(frozen=True)
class Line:
    """One student under one limit, as it is reported."""

    limit: str
    """Name of the limit."""
    arm: str
    """How the student was chosen."""
    source: str
    """How the blocks were distilled that it was cut from."""
    architecture: str
    """Its shape."""
    costs: dict[str, float]
    """Parameters, memory in bytes, measured milliseconds of a decoding step."""
    kl: dict[str, Interval]
    """Tokens -> KL on the test split."""
    difference: dict[str, Interval]
    """Tokens -> KL minus that of the uniform student under the same limit, paired."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        intervals = {
            name: {tokens: one.to_dict() for tokens, one in getattr(self, name).items()}
            for name in ("kl", "difference")
        }
        return asdict(self) | intervals


@dataclass(frozen=True)
class Results:
    """All that is known so far."""

    options: argparse.Namespace
    """Those of the benchmark."""
    measured: Measured
    """The runs."""
    costs: CostModel
    """What students cost."""
    times: Mapping[str, float]
    """Measured milliseconds of a decoding step, by architecture."""

    def lines(self, arms: Sequence[Arm], uniform: Mapping[Limit, Arm]) -> list[Line]:
        """A line for each arm of which all runs are measured, and those of the `uniform` student
        under its limit."""
        found = [self._line(arm, uniform[arm.limit]) for arm in arms]
        return [line for line in found if line is not None]

    def _line(self, arm: Arm, uniform: Arm) -> Line | None:
        kl, difference = {}, {}
        for tokens in (0, self.options.short_tokens, self.options.full_tokens):
            runs = arm.runs(self.options, tokens)
            others = uniform.runs(self.options, tokens)
            if not all(run in self.measured for run in (*runs, *others)):
                return None
            own = [self.measured.kl(run) for run in runs]
            kl[str(tokens)] = mean_interval(own)
            theirs = [self.measured.kl(run) for run in others]
            difference[str(tokens)] = difference_interval(own, theirs)
        shape = str(arm.architecture)
        counted = self.costs.costs(arm.architecture, ["parameters", "memory"])
        costs = {name: float(value) for name, value in counted.items()}
        costs["decode_ms"] = self.times[shape]
        return Line(arm.limit.name, arm.name, arm.source, shape, costs, kl, difference)


def markdown(
    limits: Mapping[Limit, Sequence[str]], lines: Sequence[Line], *, teacher: Mapping[str, float]
) -> list[str]:
    """A table for each limit: every arm, its cost, and its KL before and after distillation; below
    it the sentences that the limit has."""
    text = []
    for limit, notes in limits.items():
        chosen = [line for line in lines if line.limit == limit.name]
        if not chosen:
            continue
        _, short, full = chosen[0].kl
        text += [
            f"**At {limit.title}**",
            "",
            f"| student | architecture | {COSTS[limit.cost]}, share of the teacher's | KL as cut | "
            f"after {int(short):,} tokens | after {int(full):,} tokens | less the uniform "
            "student's |",
            "|---|---|---|---|---|---|---|",
        ]
        best = min(line.kl[full].mean for line in chosen)
        for line in chosen:
            last = f"{line.kl[full].mean:.3f} {_half(line.kl[full])}"
            last = f"**{last}**" if line.kl[full].mean == best else last
            against = "" if line.arm == UNIFORM else _signed(line.difference[full])
            text.append(
                f"| {WORDS.get(line.arm, line.arm)} | {line.architecture} | "
                f"{line.costs[limit.cost] / teacher[limit.cost]:.3f} | {line.kl['0'].mean:.2f} | "
                f"{line.kl[short].mean:.3f} {_half(line.kl[short])} | {last} | {against} |"
            )
        text += ["", *(f"- {note}" for note in notes), ""] if notes else [""]
    return text


def source_table(limits: Sequence[Limit], lines: Sequence[Line]) -> list[str]:
    """The per-layer student of each limit by how its blocks were distilled."""
    if not lines:
        return []
    _, short, full = lines[0].kl
    text = [
        f"| limit | blocks | KL as cut | after {int(short):,} tokens | "
        f"after {int(full):,} tokens | less the uniform student's |",
        "|---|---|---|---|---|---|",
    ]
    for limit in limits:
        chosen = {line.source: line for line in lines if line.limit == limit.name}
        for source in (source for source in SOURCES if source in chosen):
            line = chosen[source]
            text.append(
                f"| {limit.title} | {source} | {line.kl['0'].mean:.2f} | "
                f"{line.kl[short].mean:.3f} {_half(line.kl[short])} | "
                f"{line.kl[full].mean:.3f} {_half(line.kl[full])} | "
                f"{_signed(line.difference[full])} |"
            )
    return [*text, ""]


def error_table(errors: Mapping[str, Sequence[BlockError]]) -> list[str]:
    """Normalised errors of sub-blocks before and after their distillation, means over the layers;
    `errors` by how they were distilled, which may have trained other sizes."""
    names = list(errors)
    columns = " | ".join(f"{name}: error, tokens" for name in names)
    text = [f"| sub-block | as cut | {columns} |", "|---" * (2 + len(names)) + "|"]
    parts = dict.fromkeys(error.part for each in errors.values() for error in each)
    for part in parts:
        found = [[error for error in errors[name] if error.part == part] for name in names]
        before = mean(error.before for error in max(found, key=len))
        text.append(f"| {part} | {before:.3f} | {' | '.join(map(_error, found))} |")
    return [*text, ""]


def _error(errors: Sequence[BlockError]) -> str:
    """The mean error after training, the mean tokens, and in how many layers it came no closer."""
    if not errors:
        return "not trained"
    text = f"{mean(e.after for e in errors):.3f}, {mean(e.tokens for e in errors):,.0f}"
    unused = sum(not error.used for error in errors)
    return f"{text}; as cut in {unused} of {len(errors)} layers" if unused else text


def _half(interval: Interval) -> str:
    return f"± {(interval.high - interval.low) / 2:.3f}"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
