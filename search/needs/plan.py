"""Plan: what a command would run and take, printed instead of running it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.errors import EspalierError
from search.needs.memory import MemoryParts
from search.needs.tables import disk_table, memory_table, work_table
from search.needs.work import Work


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command would run and take."""

    opening: Sequence[str]
    """Lines about the models and the machine."""
    work: Sequence[Work]
    """What runs, in order."""
    remarks: Sequence[str]
    """Lines about the work."""
    moments: Mapping[str, MemoryParts]
    """Memory of a device by what it does at once."""
    disk: Mapping[str, float]
    """Bytes by part, at most."""
    notes: Sequence[str]
    """What is assumed, approximated or not counted."""
    problem: EspalierError | None
    """What does not fit, and which setting to change; None where all does."""

    def lines(self) -> list[str]:
        """For people, and as Markdown."""
        return [
            *self.opening,
            "",
            *work_table(self.work),
            "",
            *self.remarks,
            "",
            *memory_table(self.moments),
            "",
            *disk_table(self.disk),
            "",
            *(f"note: {note}" for note in self.notes),
        ]

    def shown(self) -> None:
        """Print it. Raises its problem afterwards, if there is one."""
        for line in self.lines():
            print(line, flush=True)
        if self.problem is not None:
            raise self.problem
