"""Setting of the benchmark: its options, and the study of each limit that students are held to."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.data import SplitSizes
from experiments.benchmarks.demo_setting import LIBRARY_FILES, add_teacher_and_corpus
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


def add_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """All options of the benchmark."""
    add_teacher_and_corpus(parser)
    parser.add_argument("--costs", nargs="+", choices=list(COSTS), default=list(COSTS))
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.5, 0.3], help="of the teacher's cost"
    )
    parser.add_argument("--short_tokens", type=int, default=65_536, help="of a short run")
    parser.add_argument("--full_tokens", type=int, default=262_144, help="of a full run")
    parser.add_argument(
        "--library_tokens", type=int, default=262_144, help="of the block-wise distillation"
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each student")
    parser.add_argument(
        "--pool", type=int, default=150, help="uniform students scored before training, a limit"
    )
    parser.add_argument(
        "--candidates", type=int, default=4, help="of each kind with a short run, a limit"
    )
    parser.add_argument("--selection_tokens", type=int, default=8_192)
    parser.add_argument("--test_tokens", type=int, default=16_384)
    parser.add_argument("--batch", type=int, default=64, help="sequences served at once")
    parser.add_argument("--context", type=int, default=256, help="tokens of each")
    parser.add_argument("--dtype", default="float32", help="type that students are served in")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--processes", type=int, default=2, help="runs at once, a thread each")
    parser.add_argument("--output", type=Path, default=output)


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
