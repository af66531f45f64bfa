"""Setting of the benchmark: the limits that students are held to, and the study of each."""

import argparse
from dataclasses import dataclass
from typing import Any

from distill.data import SplitSizes
from experiments.benchmarks.demo_setting import LIBRARY_FILES
from pruning import ATTENTION, FFN, Checkpoint, architecture_of
from search.config import BudgetConfig, FunnelConfig, PerLayerConfig, SearchConfig, SpaceConfig

COSTS = {
    "decode_ms": "decode latency",
    "memory": "memory",
    "parameters": "parameters",
}
"""What is limited: option of the budget -> in words."""
UNTRAINED, NESTED, SEPARATE = "untrained", "nested", "separate"
SOURCES = (UNTRAINED, NESTED, SEPARATE)
"""How the blocks were distilled that a student is cut from."""

UNUSED, WIDE = 0.05, 0.3
"""Share of a limit that a student may leave unused; of a control that else is none, the second."""
EVERY_DEPTH = 1000
"""More than a model has layers."""
SCORED = 16
"""Sequences that students are scored on before training."""


@dataclass(frozen=True)
class Limit:
    """One limit that all students compared meet."""

    cost: str
    """Of `COSTS`."""
    share: float
    """Of the teacher's own cost."""

    @property
    def name(self) -> str:
        """Such as "decode_ms 0.5"."""
        return f"{self.cost} {self.share:g}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.share:.0%} of the teacher's {COSTS[self.cost]}"

    def budget(
        self, options: argparse.Namespace, *, most: float | None, unused: float
    ) -> BudgetConfig:
        """The budget of a study; `most` is the limit in the cost's own unit, and `unused` the
        largest share of it that a student may leave."""
        limited: dict[str, Any] = {self.cost: self.share if most is None else most}
        return BudgetConfig(
            batch=options.batch,
            context=options.context,
            dtype=options.dtype,
            tolerance=unused,
            **limited,
        )


def limits_of(options: argparse.Namespace) -> list[Limit]:
    """The limits, those of the first share first."""
    return [Limit(cost, share) for share in options.shares for cost in options.costs]


def study_of(
    options: argparse.Namespace,
    limit: Limit,
    *,
    most: float | None = None,
    unused: float = UNUSED,
) -> SearchConfig:
    """The study of one limit, for its preparation, spaces and programmes.

    `most` is the limit in the cost's own unit, `unused` the share of it that may be left. Uniform
    students may have fewer KV heads, too, as layers of the others may.
    """
    teacher = architecture_of(Checkpoint(options.teacher).config)
    grouped = teacher.heads != teacher.kv_heads
    return SearchConfig(
        teacher=str(options.teacher),
        corpus=options.corpus,
        workspace=options.output,
        budget=limit.budget(options, most=most, unused=unused),
        space=SpaceConfig(
            kv_heads=_halves(teacher.kv_heads) if grouped else None, per_layer=[ATTENTION, FFN]
        ),
        per_layer=per_layer_of(options, NESTED),
        funnel=FunnelConfig(candidates=options.pool, sequences=SCORED),
        short_tokens=options.short_tokens,
        full_tokens=options.full_tokens,
        splits=SplitSizes(
            selection_tokens=options.selection_tokens, test_tokens=options.test_tokens
        ),
        corpus_files=LIBRARY_FILES,
        device=options.device,
    )


def per_layer_of(options: argparse.Namespace, source: str) -> PerLayerConfig:
    """Settings of blocks that are distilled as this source of `SOURCES`.

    On all tokens, whatever is learnt from the last, so that all ways have as many.
    """
    return PerLayerConfig(
        tokens=0 if source == UNTRAINED else options.library_tokens,
        distillation=SEPARATE if source == SEPARATE else NESTED,
        plateau=0.0,
        solutions=options.candidates,
        depths=EVERY_DEPTH,
    )


def _halves(count: int) -> list[int]:
    found = [count]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return sorted(found)
