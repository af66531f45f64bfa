"""Pace of long work: how fast it goes, how long it still takes, and when and how to say so."""

import logging
import math
import re
import time
from dataclasses import dataclass
from typing import TypedDict, Unpack

TELLING = 15
"""Level of records that tell facts: below those that are lines."""


def duration(seconds: float) -> str:
    """A time in words, rounded so that nothing is promised to the second."""
    if seconds < 90:
        return f"{max(1, round(seconds)):d} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60):d} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def counted(number: int, noun: str) -> str:
    """A number with its noun, whose plural ends with an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def left_in_words(seconds: float | None) -> str:
    """How long work takes that is all there is to do, to end a line with; "" where that is not
    known."""
    return "" if seconds is None else f"; about {duration(seconds)} left"


class Facts(TypedDict, total=False):
    """What work tells of itself. Each fact stays until it is told anew."""

    stage: str
    """Part of the whole that has begun."""
    number: int
    """Which of the stages it is, from 1."""
    stages: int
    """How many there are."""
    work: str
    """What goes on in it. A new one takes the place of all that was told of the one before."""
    done: float
    """Units of the work that are done."""
    total: float
    """Units of the whole work."""
    unit: str
    """Name of the units, in the plural."""
    speed: float
    """Units per second, where that says something."""
    left: float
    """Seconds until everything is done, as far as that is known now."""
    best: str
    """The best result so far, in words."""
    ended: str
    """What was stopped or failed, and why, in words."""
    begun: str
    """A run that has begun, by its name."""
    at: "RunPace"
    """How far a run is."""
    said: bool
    """Whether a line that tells how far a run is says more, and stays."""
    over: str
    """A run that has ended, by its name."""


def tell(logger: logging.Logger, **facts: Unpack[Facts]) -> None:
    """Tell whoever shows what runs now; unlike a line it is not kept."""
    if logger.isEnabledFor(TELLING):
        logger.log(TELLING, "%s", facts, extra={"facts": facts})


@dataclass(frozen=True)
class RunPace:
    """How far a run of training is: the first words of its lines, wherever these are read."""

    tokens: int
    """Trained on so far."""
    total: int
    """Of the whole run."""
    speed: float
    """Tokens per second."""
    name: str = ""
    """Of the run, where lines of several are read."""

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return (self.total - self.tokens) / self.speed if self.speed else math.inf

    def __str__(self) -> str:
        return f"{self.tokens:,} of {self.total:,} tokens, {self.speed:,.0f} tokens/s"

    @classmethod
    def read(cls, line: str, name: str) -> "RunPace | None":
        """Of a run's line; None where it is another."""
        found = re.match(r"([\d,]+) of ([\d,]+) tokens, ([\d,]+) tokens/s", line)
        if found is None:
            return None
        tokens, total, speed = (int(number.replace(",", "")) for number in found.groups())
        return cls(tokens, total, speed, name)


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
