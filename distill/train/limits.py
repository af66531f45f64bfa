"""Limits of a run: its length, its evaluations, and where and how often it is kept."""

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLimits:
    """Length, evaluations and checkpoints of one run."""

    tokens: int
    """Tokens of the whole run."""
    reports: int | tuple[int, ...] = 1
    """Evaluations, evenly spaced; or the optimiser steps after which they come. The last is at the
    end."""
    checkpoint: Path | None = None
    """Directory that the run is kept in while it goes on; None: it is not kept."""
    checkpoint_seconds: float = math.inf
    """Least seconds between two checkpoints; one more is written at each evaluation."""
