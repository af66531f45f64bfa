"""How far a run goes, and how often it is watched and kept."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLimits:
    """Length, evaluations and checkpoints of a run."""

    tokens: int
    """Training tokens of the whole run; a step that they do not fill is left out."""
    reports: int | tuple[int, ...] = 1
    """Evaluations, evenly spaced; or the optimiser steps after which they come. The last is at the
    end."""
    checkpoint: Path | None = None
    """Directory that the run is kept in while it goes on; None: it is not kept."""
    checkpoint_seconds: float = 0.0
    """Seconds between two checkpoints, at least."""
