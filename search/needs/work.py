"""Work that is planned: what runs, on how many tokens, with how many operations."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import require


@dataclass(frozen=True, kw_only=True)
class Work:
    """Runs of one kind, or passes of the teacher."""

    what: str
    """Their name for people."""
    runs: int
    """How many."""
    tokens: float
    """Of all of them, at most; trained on, or read where nothing is trained."""
    training_flops: float = 0.0
    """Operations of training, at most."""
    forward_flops: float = 0.0
    """Operations of everything else: evaluations, and a teacher that reads."""
    seconds: float | None = None
    """How long they take, at most; None where that is not known."""

    def __post_init__(self) -> None:
        require(self.tokens >= 0, f"{self.what} has {self.tokens} tokens; give a number from 0 up")

    @property
    def flops(self) -> float:
        """All operations."""
        return self.training_flops + self.forward_flops


def total(work: Sequence[Work]) -> Work:
    """All of it together, one after the other."""
    times = [part.seconds for part in work]
    known = [seconds for seconds in times if seconds is not None]
    return Work(
        what="in all",
        runs=sum(part.runs for part in work),
        tokens=sum(part.tokens for part in work),
        training_flops=sum(part.training_flops for part in work),
        forward_flops=sum(part.forward_flops for part in work),
        seconds=sum(known) if len(known) == len(times) else None,
    )
