"""Clock of a study: which of its stages runs, and how long all of them still take."""

import logging
import math
import time
from collections.abc import Collection, Mapping

from common.progress import duration, tell

LOGGER = logging.getLogger(__name__)
PREPARATION, BLOCKS, SCORES = "preparation", "blocks of layers", "scores before training"
TRIALS, FULL_RUNS, REPORT = "trials", "full runs", "test and report"


def stage_of(kind: str, member: str | None) -> str:
    """Name of a stage; of a family with its member."""
    return kind if member is None else f"{kind} of member {member}"


class StudyClock:
    """Stages of one start of a study, one after the other."""

    def __init__(
        self,
        planned: Mapping[str, float | None],
        deadline: float = math.inf,
        *,
        partly_done: Collection[str] = (),
    ):
        """`planned` has the seconds of every stage, in order, None where they are not known; all
        ends at the `deadline`, on the monotonic clock, whatever is left then. Of stages that are
        `partly_done`, nobody knows how much is left."""
        self.planned, self.deadline = dict(planned), deadline
        self.estimated = {name for name, seconds in self.planned.items() if seconds}
        """Stages whose seconds follow from the speed that was guessed at the outset."""
        self.guesses = {name: planned[name] for name in self.estimated - set(partly_done)}
        """Those seconds, where all of a stage is to be done."""
        self.slower = 1.0
        """How many times as long as guessed the work takes, by the stage that was timed last."""
        self.stage = ""
        """The one that runs."""
        self.began = time.monotonic()
        """When it began."""

    def begin(self, stage: str) -> None:
        """The next stage begins, if it is not under way."""
        if stage == self.stage:
            return
        self.planned.setdefault(stage, None)
        self.stage, self.began = stage, time.monotonic()
        names = list(self.planned)
        number = names.index(stage) + 1
        LOGGER.info(f"stage {number} of {len(names)}: {stage}{self.words()}")
        tell(LOGGER, stage=stage, number=number, stages=len(names))
        self.tell()

    def expect(self, stage: str, seconds: float) -> None:
        """A stage that is yet to come, or that runs, takes so long, by what was timed."""
        self.planned[stage] = seconds
        self.estimated.discard(stage)
        self.tell()

    def tell(self, own: float | None = None) -> None:
        """Tell how long everything still takes; `own` are the seconds that are left of the stage
        that runs, where its work knows."""
        guess = self.guesses.get(self.stage)
        if own is not None and guess:
            self.slower = (time.monotonic() - self.began + own) / guess
        left = self.left(own)
        if left is not None:
            tell(LOGGER, left=left)

    def left(self, own: float | None = None) -> float | None:
        """Seconds until everything is done; None where that is not known."""
        if self.stage not in self.planned:
            return None
        names = list(self.planned)
        later = [self._seconds(name) for name in names[names.index(self.stage) + 1 :]]
        planned = self.planned[self.stage]
        if own is None and planned is not None:
            own = max(0.0, planned - (time.monotonic() - self.began))
        known = [seconds for seconds in (own, *later) if seconds is not None]
        rest = self.deadline - time.monotonic()
        # after it, what was planned is cut to the least, and nobody knows how long that takes
        return min(rest, sum(known)) if rest > 0 and len(known) == len(later) + 1 else None

    def _seconds(self, stage: str) -> float | None:
        """Of a stage that is yet to come."""
        seconds = self.planned[stage]
        if seconds is None or stage not in self.estimated:
            return seconds
        return seconds * self.slower

    def words(self, own: float | None = None) -> str:
        """How long everything still takes, to end a line with; "" where that is not known."""
        self.tell(own)
        left = self.left(own)
        return "" if left is None else f"; about {duration(left)} left in all"
