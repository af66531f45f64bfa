"""Number of runs at once: fewer after one was killed for want of memory."""

from collections.abc import Callable

from common.machine import Cgroups
from distill.train import ResolvedTraining
from search.cluster.ray_errors import DIED, KILLED, OUT_OF_MEMORY
from search.cluster.resources import Resources


class Room:
    """For all runs of one start of a study, of whatever kind."""

    def __init__(self, resources: Resources, kills: Callable[[], int] | None = None):
        """As many as `resources` say at first.

        `kills` counts the processes that the kernel killed for memory; by default those of this
        process's control group, where Ray's workers are too.
        """
        self.resources = resources
        self.limit = resources.concurrent
        self._kills = kills or Cgroups.of().memory_kills
        self._known = self._kills()

    def explained(self, reason: str) -> str:
        """The `reason` why a worker died; of one that was killed, for memory where the kernel has
        killed for memory since, and no other worker is known that it was."""
        if not reason.startswith(KILLED) or self._kills() <= self._known:
            return reason
        self._known += 1
        return OUT_OF_MEMORY + reason.removeprefix(KILLED)

    def lowered(self, reason: str, others: int) -> str | None:
        """A run that wanted for memory is put back: no more than the `others` that ran beside it
        run at once from now on. Gives what is said of it.

        None where no other ran, or where it found no memory on a GPU that it had to itself, so that
        fewer would not help.
        """
        own_gpu = self.resources.gpus >= 1 and not reason.startswith(DIED)
        if own_gpu or not others:
            return None
        self.limit = min(self.limit, others)
        return f"{reason}; put back, and no more than {self.limit} at once from now on"


def too_large(run: object, reason: str, *, training: ResolvedTraining) -> str:
    """Why a search stops where a run did not fit the memory though no other ran."""
    fields = " or ".join(training.smaller)
    known = f"{fields}, and start the same command again; " if fields else ""
    return (
        f"{run} does not fit the memory by itself: {reason}; {known}"
        f"a smaller --block or --space is another --study"
    )
