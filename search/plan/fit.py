"""Whether a run fits a device, and which settings make it fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from common.errors import SearchError
from distill.train import ADAMW, ADAMW_8BIT, ResolvedTraining
from search.cluster.trial_memory import GB, TrialMemory
from search.needs.memory import MemoryParts

MOST_DEVICES = 1024
"""Among which a run is shared at most."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A run that is to fit a device."""

    what: str
    """Which run it is, in words."""
    memory: TrialMemory
    """Its memory, with the settings as they are."""
    parts_of: Callable[[TrialMemory], MemoryParts]
    """Its memory by part on each of its devices, with any settings."""
    free: float
    """Bytes of the device."""
    gpu: bool
    """Whether that is a GPU."""
    last_resort: str
    """What to do where no setting is enough, with {count} for the devices that would share it."""

    @property
    def parts(self) -> MemoryParts:
        """With the settings as they are."""
        return self.parts_of(self.memory)

    def require(self) -> None:
        """Raises SearchError where it does not fit, which says what to change to what."""
        size = float(self.parts.total)
        if size <= self.free:
            return
        where = "of a GPU" if self.gpu else "that are free for it"
        text = (
            f"{self.what} takes about {size / GB:,.1f} GB, above the {self.free / GB:,.1f} GB "
            f"{where}"
        )
        alone = self.gpu and self.memory.devices == 1
        for changes in _changes(self.memory.training, alone_on_gpu=alone):
            less = float(self._with(changes).total)
            if less <= self.free:
                raise SearchError(
                    f"{text}; give {_options(changes)}, with which it takes {less / GB:,.1f} GB"
                )
        raise SearchError(
            f"{text}, whatever --training.micro_batch and --training.gradient_checkpointing are; "
            + self.last_resort.format(count=self._devices())
        )

    def _devices(self) -> str:
        """How many would hold it."""
        least = {"micro_batch": 1, "gradient_checkpointing": True, "optimizer": ADAMW}
        counts = range(self.memory.devices + 1, MOST_DEVICES + 1)
        found = (n for n in counts if float(self._with(least, n).total) <= self.free)
        count = next(found, None)
        return f"more than {MOST_DEVICES:,}" if count is None else str(count)

    def _with(self, changes: dict[str, Any], devices: int | None = None) -> MemoryParts:
        training = replace(self.memory.training, **changes)
        devices = devices or self.memory.devices
        return self.parts_of(replace(self.memory, training=training, devices=devices))


def _changes(training: ResolvedTraining, *, alone_on_gpu: bool) -> Iterator[dict[str, Any]]:
    """Settings that take less memory, those that cost least first."""
    sizes = [training.forward_batch]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    of_batch = [{"micro_batch": size} for size in sizes[1:]]
    more: dict[str, Any] = {}
    yield from of_batch
    for name, value in (("gradient_checkpointing", True), ("optimizer", ADAMW_8BIT)):
        # bitsandbytes needs a GPU, and a run to itself.
        if getattr(training, name) == value or (name == "optimizer" and not alone_on_gpu):
            continue
        more[name] = value
        yield dict(more)
        yield from ({**change, **more} for change in of_batch)


def _options(changes: dict[str, Any]) -> str:
    shown = [f"--training.{name} {str(value).lower()}" for name, value in changes.items()]
    return " and ".join(shown)
