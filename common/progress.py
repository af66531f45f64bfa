"""Pace of long work: how fast it goes, how long it still takes, and when to say so."""

import math
import time


class Throttle:
    """True at most once per `seconds`: for checkpoints and progress lines."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.last = time.monotonic()

    def __call__(self) -> bool:
        """Whether `seconds` have passed since this was last true, or since it was made."""
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class Progress:
    """Speed and remaining time of long work, in units of the caller's choice."""

    def __init__(self, total: float = math.inf, *, done: float = 0.0):
        """Args:
        total: Units of the whole work; may be changed while it goes on.
        done: Units that an earlier start did; they tell nothing of this one's speed.
        """
        self.total = total
        self.before = done
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since this start began."""
        return time.monotonic() - self.started

    def speed(self, done: float) -> float:
        """Units per second of this start, which `done` units of all starts were reached by."""
        return (done - self.before) / max(self.seconds, 1e-9)

    def left(self, done: float) -> float:
        """Seconds that the units still missing take at the speed so far.

        Before this start's first unit is done it counts as if it were, so that a time can be told.
        """
        missing = max(0.0, self.total - done)
        return missing * self.seconds / max(1.0, done - self.before)
