"""Memory of a piece of work, by part."""

from dataclasses import dataclass, fields, replace
from typing import Any

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

    def shared(self, count: int) -> "MemoryParts":
        """Of one of so many devices that share weights, gradients and optimiser (arXiv 1910.02054).

        An estimate: what is gathered for a layer is not counted.
        """
        state = self.weights + self.gradients + self.optimizer
        tensors = self.total - self.allocator - self.process
        left = (tensors - state + state / count) / tensors
        return replace(
            self,
            weights=self.weights / count,
            gradients=self.gradients / count,
            optimizer=self.optimizer / count,
            allocator=self.allocator * left,
        )
