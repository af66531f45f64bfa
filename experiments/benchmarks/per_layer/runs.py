"""Runs of the benchmark: a student cut, distilled and measured in a process of its own."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill import Corpus, Distillation, Evaluation, Targets, evaluate
from experiments.benchmarks.per_layer.setting import SOURCES
from experiments.benchmarks.rows import Row
from pruning import Architecture
from search.workers import SearchAssets

SELECTION, TEST = "selection", "test"


@dataclass(frozen=True, order=True)
class Run:
    """One student after so many tokens, measured on one split."""

    architecture: str
    """As `Architecture` writes it."""
    source: str
    """Of `SOURCES`; of a uniform student the first, which has no part in it."""
    tokens: int
    """Of its distillation; 0: as it was cut."""
    seed: int
    """Order of the tokens."""
    split: str
    """`SELECTION` for what is chosen by, `TEST` for what is compared."""

    @classmethod
    def of(
        cls, architecture: Architecture, *, source: str, tokens: int, seed: int, split: str
    ) -> "Run":
        """Runs that are the same are equal: nothing is drawn without tokens, and uniform students
        take nothing of a library."""
        source = source if architecture.per_layer else SOURCES[0]
        return cls(str(architecture), source, tokens, seed if tokens else 0, split)


@dataclass(frozen=True)
class Setting:
    """All that a process needs."""

    assets: dict[str, SearchAssets]
    """Source of blocks -> what students that are cut from it read."""


def measure(setting: Setting, run: Run) -> Row:
    """The row of a run."""
    torch.set_num_threads(1)
    assets = setting.assets[run.source]
    student: Any = assets.source.cut(Architecture.parse(run.architecture))
    student = student.to(torch.device(assets.device))
    if run.tokens:
        distillation = Distillation(
            student,
            replace(assets.training_data(), shuffle=run.seed),
            training=assets.training,
            tokens=run.tokens,
        )
        distillation.advance(distillation.total_steps)
    kl = _evaluated(student, assets, split=run.split).kl
    return {**asdict(run), "kl": float(kl.mean()), "kl_sequences": kl.round(6).tolist()}


def run_of(row: Row) -> Run:
    """The run that a row is of."""
    return Run(**{name: row[name] for name in Run.__dataclass_fields__})


class Measured:
    """The rows of the runs so far."""

    def __init__(self, rows: Sequence[Row]):
        """`rows` are those of `measure`."""
        self.rows = {run_of(row): row for row in rows}

    def __contains__(self, run: Run) -> bool:
        return run in self.rows

    def kl(self, run: Run) -> NDArray[np.float64]:
        """KL of each sequence, [sequences]."""
        return np.array(self.rows[run]["kl_sequences"])


def _evaluated(student: Any, assets: SearchAssets, *, split: str) -> Evaluation:
    targets = assets.test_targets if split == TEST else assets.selection_targets
    blocks = Corpus(assets.corpus).blocks(split)
    return evaluate(student, blocks, targets=Targets(targets), precision=assets.training.precision)
