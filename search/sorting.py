"""Sorting a model by importance: the teacher, and of a family the students it has so far."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import Corpus
from pruning import (
    Importance,
    Ordering,
    Scoring,
    Served,
    architecture_of,
    measure_importance,
    write_sorted_teacher,
)
from pruning.moments import measure_moments
from search.config_sections import ImportanceConfig
from search.teacher import Teacher
from search.workspace import Workspace, fingerprint

CALIBRATION_BATCH = 16
ENERGY_SEQUENCES = 64
"""Sequences that the size of the norms' inputs is measured on, at most."""


@dataclass(frozen=True)
class CalibrationBatches:
    """Token ids [batch, sequence] of calibration blocks, as often as they are asked for."""

    blocks: Any
    """[sequences, sequence]."""
    batch: int = CALIBRATION_BATCH

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.blocks), self.batch):
            yield torch.from_numpy(self.blocks[start : start + self.batch].astype("int64"))


@dataclass(frozen=True)
class Sorter:
    """Measures importance and writes sorted models into the workspace, each once."""

    settings: ImportanceConfig
    corpus: Corpus
    corpus_name: str
    calibration: int
    """Training sequences that importance is measured on, at most."""
    spans: bool
    """Whether contiguous layers are scored too."""
    seed: int
    serve_with: tuple[str, ...]
    """Engines whose patterns of layers students keep."""
    workspace: Workspace
    say: Callable[[str], None]
    precision: Mapping[str, str] = field(default_factory=dict)
    """What the model computes in, where it is not fp32."""

    def sorted_model(self, source: Teacher, model: Callable[[], Any], what: str) -> Path:
        """The checkpoint `source`, sorted; `model` gives it loaded, where it must be measured."""
        name, directory = self._name(source), self.directory(source)
        if directory.exists():
            self.say(f"sorted {what}: found {directory.name}")
            return directory
        importance = self._importance(source, model, name)
        places = self._places(source)
        ordering = Ordering.from_importance(
            importance, architecture_of(source.config), places=places
        )
        mean_squares = None
        if self.settings.rms_rescale:
            few = self.corpus.calibration(min(self.calibration, ENERGY_SEQUENCES))
            mean_squares = measure_moments(model(), CalibrationBatches(few)).mean_squares
        write_sorted_teacher(source.checkpoint, ordering, directory, mean_squares=mean_squares)
        order = ", ".join(str(layer) for layer in ordering.layers.tolist())
        self.say(f"sorted {what}: {directory.name}; layers by importance: {order}")
        return directory

    def directory(self, source: Teacher) -> Path:
        """Where the checkpoint `source` goes, sorted."""
        return self.workspace.sorted_teacher(self._name(source))

    def _name(self, source: Teacher) -> str:
        places = self._places(source)
        how = [asdict(self.settings), *["spans"] * self.spans, *self.precision.values()]
        how += [] if places is None else [places.tolist()]
        return fingerprint(source.weights_fingerprint(), self.corpus_name, self.calibration, *how)

    def _places(self, source: Teacher) -> Tensor | None:
        """Where its layers may stand in a student."""
        return Served(source.config, self.serve_with).places

    def _importance(self, source: Teacher, model: Callable[[], Any], name: str) -> Importance:
        path = self.workspace.importance(name)
        if path.exists():
            return Importance.load(path)
        blocks = self.corpus.calibration(self.calibration)
        started = time.monotonic()
        importance = measure_importance(
            model(),
            CalibrationBatches(blocks),
            scoring=Scoring(self.settings.score, self.settings.layers, self.spans, self.seed),
            checkpoint=source.checkpoint,
        )
        aside = path.with_suffix(".tmp")
        importance.save(aside)
        aside.replace(path)
        self.say(f"importance: {len(blocks):,} sequences in {time.monotonic() - started:.0f} s")
        return importance
