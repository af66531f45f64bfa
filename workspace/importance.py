"""Importance of a model, measured in pieces that are kept until all of them are there.

Each piece is the sums over some calibration sequences. They are added in a fixed order, so that
the importance is the same, however many processes measured it.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.files import replacing, write_directory_atomically
from pruning import Checkpoint, Importance, Scoring
from pruning.importance import (
    LEFT_OUT_SCORES,
    LEFT_OUT_SEQUENCES,
    Moments,
    Sums,
    added,
    check_scoring,
    importance_of,
    layer_sums,
    moment_sums,
    moments_of,
    width_sums,
)
from workspace.pieces import Piece

LOGGER = logging.getLogger(__name__)
IMPORTANCE = "importance"
"""What progress calls it."""
WIDTH, LAYERS, NORMS = "width", "layers", "norms"
"""Kinds of passes: of the scores of width and stream, with each layer left out, of the norms."""
SEQUENCES = {WIDTH: 32, LAYERS: 4, NORMS: 16}
"""Sequences of a piece, by the kind: with a layer left out a sequence is read once for each."""
SUMS = "sums.safetensors"
CALIBRATION_BATCH = 16
"""Sequences that are read at once."""


@dataclass(frozen=True)
class CalibrationBatches:
    """Token ids [batch, sequence] of calibration blocks, as often as they are asked for."""

    blocks: NDArray[Any]
    """Token ids [sequences, sequence]."""
    batch: int = CALIBRATION_BATCH
    """Sequences at once."""

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.blocks), self.batch):
            yield torch.from_numpy(self.blocks[start : start + self.batch].astype("int64"))


@dataclass(frozen=True)
class CalibrationPasses:
    """Passes of one kind over some calibration sequences."""

    kind: str
    """Which sums are wanted."""
    blocks: NDArray[Any]
    """Token ids [sequences, sequence]."""
    scoring: Scoring
    """What they are for."""

    def write(self, model: Any, folder: Path) -> None:
        """Measure the sums and write them to `folder`, whole or not at all."""
        sums = self._sums(model)
        write_directory_atomically(folder, lambda aside: save_file(sums, aside / SUMS))

    def _sums(self, model: Any) -> Sums:
        batches = CalibrationBatches(self.blocks)
        if self.kind == WIDTH:
            return width_sums(model, batches, scoring=self.scoring)
        if self.kind == LAYERS:
            return layer_sums(model, batches, scoring=self.scoring)
        return moment_sums(model, batches)


@dataclass(frozen=True)
class ImportanceFiles:
    """Importance of one model in the workspace, or its pieces until they are all there."""

    path: Path
    """Where the importance goes."""
    parts: Path
    """Folder of the pieces."""
    blocks: NDArray[Any]
    """Token ids [sequences, sequence] of all calibration sequences."""
    few_blocks: NDArray[Any]
    """Those that the size of the norms' inputs is measured on."""
    scoring: Scoring
    """The scores."""
    checkpoint: Checkpoint
    """The model's."""

    def missing(self, *, moments: bool) -> list[Piece]:
        """The pieces that are yet to be measured: those of the importance, unless it is there, and
        of the `moments` where they are wanted. Raises PruningError for scores that there are not.
        """
        check_scoring(self.scoring, weights=True)
        kinds = ([] if self.path.exists() else self._kinds) + ([NORMS] if moments else [])
        pieces = [piece for kind in kinds for piece in self._pieces(kind)]
        return [piece for piece in pieces if not piece.folder.exists()]

    def importance(self) -> Importance:
        """By pieces that are all there, or as an earlier start wrote it. Raises PruningError where
        scores are not finite."""
        if self.path.exists():
            return Importance.load(self.path)
        sums: Sums = {}
        for kind in self._kinds:
            sums |= self._added(kind)
        importance = importance_of(
            sums, self.checkpoint.config, scoring=self.scoring, weights=self.checkpoint
        )
        with replacing(self.path) as aside:
            importance.save(aside)
        LOGGER.info(f"importance: {len(self.blocks):,} sequences")
        return importance

    def moments(self) -> Moments:
        """By pieces that are all there."""
        return moments_of(self._added(NORMS))

    def forget_pieces(self) -> None:
        """Delete the pieces, once what they are for is written."""
        shutil.rmtree(self.parts, ignore_errors=True)

    @property
    def _kinds(self) -> list[str]:
        return [WIDTH] + [LAYERS] * (self.scoring.layer_score in LEFT_OUT_SCORES)

    def _added(self, kind: str) -> Sums:
        return added(load_file(piece.folder / SUMS) for piece in self._pieces(kind))

    def _pieces(self, kind: str) -> Iterator[Piece]:
        """In the order in which their sums are added."""
        most = LEFT_OUT_SEQUENCES if kind == LAYERS else None
        blocks = self.few_blocks if kind == NORMS else self.blocks[:most]
        size = SEQUENCES[kind]
        readings = 1 + self.checkpoint.config.num_hidden_layers * (kind == LAYERS)
        for first in range(0, len(blocks), size):
            some = blocks[first : first + size]
            yield Piece(
                kind=IMPORTANCE,
                tokens=some.size * readings,
                folder=self.parts / f"{kind}-{first}-{len(some)}",
                passes=partial(CalibrationPasses, kind, some, self.scoring),
            )
