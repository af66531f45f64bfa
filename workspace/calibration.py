"""Calibration batches: the text that importance is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

CALIBRATION_BATCH = 16


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
