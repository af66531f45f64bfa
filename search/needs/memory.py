"""Memory of a piece of work by part, and what changes it."""

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any

MOST_DEVICES = 1024
"""Among which a state is shared at most."""
SHOWN = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "activations": "activations",
    "logits": "logits and targets",
    "teacher": "teacher",
    "allocator": "allocator",
    "process": "process, context",
}
"""Part -> its name for people, in the order in which they are printed."""


@dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """Bytes that something takes at one moment; each may be an array, of one for every student."""

    weights: Any = 0.0
    """Of the model that learns or is read, with copies in a narrower type."""
    gradients: Any = 0.0
    """Of the weights."""
    optimizer: Any = 0.0
    """Moments, and the average of the weights where there is one."""
    activations: Any = 0.0
    """What the backward pass needs of the layers, or a forward pass of one of them."""
    logits: Any = 0.0
    """Of a forward pass, with the teacher's targets."""
    teacher: Any = 0.0
    """Weights of a teacher beside a student."""
    allocator: Any = 0.0
    """What is held besides for the tensors above."""
    process: Any = 0.0
    """What a process takes before it holds any tensor, of the machine or of a device."""

    @property
    def total(self) -> Any:
        """All of them."""
        return sum(self.bytes_of.values())

    @property
    def bytes_of(self) -> dict[str, Any]:
        """By the name of the part."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def shown(self) -> dict[str, float]:
        """Those that take anything, by their names for people."""
        return {SHOWN[name]: size for name, size in self.bytes_of.items() if size}

    def held(self, *, slack: float, process: float) -> "MemoryParts":
        """With what an allocator holds for each byte, and a `process`."""
        return replace(self, allocator=(slack - 1) * self.total, process=process)

    def devices(self, memory: float) -> int | None:
        """Devices with so many bytes each that hold it where weights, gradients and optimiser are
        shared among them (arXiv 1910.02054), and the rest is on each; None where none do.

        An estimate: what is gathered for a layer, and a smaller share of a batch, are not counted.
        """
        state = self.weights + self.gradients + self.optimizer
        slack = 1 + self.allocator / (self.total - self.allocator - self.process)
        left = memory - (self.total - state * slack)
        count = ceil(state * slack / left) if left > 0 else MOST_DEVICES + 1
        return max(1, count) if count <= MOST_DEVICES else None
