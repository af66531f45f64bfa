"""Arms of the comparison: the students that are distilled under each limit, and their runs."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.benchmarks.per_layer.choosing import Choice
from experiments.benchmarks.per_layer.runs import SELECTION, TEST, Measured, Run
from experiments.benchmarks.per_layer.setting import NESTED, SOURCES, Limit
from pruning import Architecture

UNIFORM, PER_LAYER = "uniform", "per-layer"


@dataclass(frozen=True)
class Arm:
    """One student under one limit."""

    limit: Limit
    """What it meets."""
    name: str
    """`UNIFORM`, `PER_LAYER`, or the control that chose it."""
    architecture: Architecture
    """Its shape."""
    source: str = NESTED
    """How the blocks were distilled that it is cut from."""

    def run(self, tokens: int, seed: int) -> Run:
        """Its run on the test split."""
        return Run.of(self.architecture, source=self.source, tokens=tokens, seed=seed, split=TEST)

    def runs(self, options: argparse.Namespace, tokens: int) -> list[Run]:
        """Those of all seeds; as it was cut there is but one."""
        seeds = range(options.seeds if tokens else 1)
        return [self.run(tokens, seed) for seed in seeds]


def selection_runs(options: argparse.Namespace, choices: Sequence[Choice]) -> list[Run]:
    """The short runs that the best candidates are chosen by, each once."""
    shapes = [shape for choice in choices for shape in (*choice.uniform, *choice.per_layer)]
    return [_selection_run(options, shape) for shape in dict.fromkeys(shapes)]


def arms_of(
    options: argparse.Namespace, limit: Limit, choice: Choice, *, measured: Measured
) -> list[Arm]:
    """The best of each kind after its short run, and the controls."""

    def best(shapes: Sequence[str]) -> Architecture:
        means = {shape: measured.kl(_selection_run(options, shape)).mean() for shape in shapes}
        return Architecture.parse(min(means, key=means.__getitem__))

    named = {UNIFORM: best(choice.uniform), PER_LAYER: best(choice.per_layer)}
    named |= {name: Architecture.parse(shape) for name, shape in choice.controls.items()}
    return [Arm(limit, name, shape) for name, shape in named.items()]


def by_source(arms: Sequence[Arm]) -> list[Arm]:
    """The per-layer students under all limits, cut from blocks of every source."""
    chosen = [arm for arm in arms if arm.name == PER_LAYER]
    return [
        Arm(arm.limit, arm.name, arm.architecture, source) for arm in chosen for source in SOURCES
    ]


def test_runs(options: argparse.Namespace, arms: Sequence[Arm]) -> list[Run]:
    """All runs of the arms, each once: those of the first arms first."""

    def every() -> Iterator[Run]:
        for arm in arms:
            for tokens in (0, options.short_tokens, options.full_tokens):
                yield from arm.runs(options, tokens)

    return list(dict.fromkeys(every()))


def _selection_run(options: argparse.Namespace, shape: str) -> Run:
    return Run.of(
        Architecture.parse(shape),
        source=NESTED,
        tokens=options.short_tokens,
        seed=0,
        split=SELECTION,
    )
