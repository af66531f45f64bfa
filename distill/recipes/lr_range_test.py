"""Learning-rate range test: a short run at a rising rate chooses the peak rate.

As in Smith (arXiv 1506.01186), on a copy of the student: the rate rises until the loss does.
"""

import copy
import logging
from dataclasses import dataclass, replace
from typing import Any

from common.errors import DistillError, TrainingDiverged
from distill.recipes.settings import FEWEST_STEPS
from distill.train.settings import ResolvedTraining, default_rate
from distill.train.trainer import Distillation, TrainingData

LOGGER = logging.getLogger(__name__)
SPAN = 32.0
"""The rate rises from the default over this to the default times this."""
SMOOTHING = 0.9
GIVE_UP = 2.0
"""The run ends where the smoothed loss is so many times its lowest."""
SHARE_OF_LOWEST = 1 / 3
"""The chosen rate is this share of the one at which the loss was lowest. With 60 to 120 steps that
is 0.7 to 1.3 times the best rate of the sweep in
`experiments/benchmarks/distill/learning_rate.py`."""


@dataclass(frozen=True)
class RangeRun:
    """Result of a learning-rate range test."""

    rate: float
    """The peak rate to take."""
    points: list[tuple[float, float]]
    """(rate, smoothed loss), step by step."""


@dataclass(frozen=True)
class _Ramp:
    """A rate that grows by the same factor every step; in place of a schedule."""

    low: float
    high: float
    steps: int

    def rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        return float(self.low * (self.high / self.low) ** (step / max(1, self.steps - 1)))


def find_rate(
    student: Any, data: TrainingData, *, training: ResolvedTraining, steps: int
) -> RangeRun:
    """Choose a peak rate for `student` by `steps` optimiser steps on a copy of it.

    Raises DistillError where so few steps show nothing.
    """
    if steps < FEWEST_STEPS:
        raise DistillError(
            f"a range run of {steps} steps shows nothing; give it at least {FEWEST_STEPS}"
        )
    middle = default_rate(sum(p.numel() for p in student.parameters()))
    ramp = _Ramp(middle / SPAN, middle * SPAN, steps)
    calm = replace(training, learning_rate=middle, average=None, compile=False)
    tokens = steps * training.batch * data.block
    run = Distillation(copy.deepcopy(student), data, training=calm, tokens=tokens)
    run.schedule = ramp  # type: ignore[assignment]
    points: list[tuple[float, float]] = []
    smooth, weight = 0.0, 0.0
    for step in range(steps):
        try:
            loss = run.advance(1)
        except TrainingDiverged:
            break
        assert loss is not None
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        points.append((ramp.rate(step), smooth / weight))
        if points[-1][1] > GIVE_UP * min(value for _, value in points):
            break
    lowest, _ = min(points, key=lambda point: point[1])
    LOGGER.info(f"range run: {len(points)} steps, lowest loss at a rate of {lowest:.2g}")
    return RangeRun(lowest * SHARE_OF_LOWEST, points)
