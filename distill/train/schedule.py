"""Steps, tokens and learning rate of a run."""

import math
from dataclasses import dataclass

from distill.train.settings import WSD, TrainingSettings


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: rise to the peak, then cosine; or rise, stay, and fall in a line at
    the end (wsd)."""

    settings: TrainingSettings
    """Its shares of warm-up and decay, and the rate at the end."""
    peak: float
    """The highest learning rate."""
    total_steps: int
    """Optimiser steps of the run."""

    @property
    def warmup(self) -> int:
        """Steps that the learning rate takes to rise."""
        given = self.settings.warmup_steps
        wanted = round(self.settings.warmup_share * self.total_steps) if given is None else given
        return max(1, wanted)

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        low = self.settings.final_rate_share
        if self.settings.schedule == WSD:
            falling = max(1, round(self.settings.decay_share * self.total_steps))
            done = max(0.0, (step - (self.total_steps - falling)) / falling)
            return self.peak * (1 - (1 - low) * done)
        progress = min(1.0, (step - self.warmup) / max(1, self.total_steps - self.warmup))
        return self.peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


class Steps:
    """How far a run has come, in optimiser steps and in tokens."""

    step: int
    """Optimiser steps done."""
    total_steps: int
    """Optimiser steps of the whole run."""
    tokens_per_step: int
    """Tokens of an optimiser step, over all processes."""
    schedule: Schedule
    """Gives the learning rate of a step."""

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.tokens_per_step

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.tokens_per_step

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.total_steps

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        return self.schedule.rate(step)
