"""Edits of a student beyond the slice, by its tensor names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pruning.families.words import Rescale


@dataclass(frozen=True)
class WeightEdits:
    """Changes of an option to a student beyond the slice, by the student's tensor names."""

    scales: Mapping[str, Rescale] = field(default_factory=dict)
    """Factors of weights of norms, applied after the edits."""
    edits: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """Applied to the whole sliced tensor."""
    added: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the teacher does not have, or in place of its own."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Values of the student's configuration."""

    def __or__(self, other: "WeightEdits") -> "WeightEdits":
        """Both, one after the other where they meet on a tensor; scales multiply."""
        both = dict(self.scales)
        for name, scale in other.scales.items():
            factor = both[name].factor if name in both else 1.0
            both[name] = Rescale(factor * scale.factor, scale.offset)
        return WeightEdits(
            scales=both,
            edits={**self.edits, **other.edits},
            added={**self.added, **other.added},
            config={**self.config, **other.config},
        )

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """The sliced tensor called `name` in the student, or a piece of one without an edit."""
        if name in self.edits:
            tensor = self.edits[name](tensor)
        if name in self.scales:
            tensor = self.scales[name].apply(tensor)
        return tensor


NO_EDITS = WeightEdits()
