"""Which of a teacher's layers and channels a student was cut from."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from common.errors import DistillError
from distill.backend.layers import EMBEDDINGS


@dataclass(frozen=True)
class BlockMap:
    """Which parts of the teacher a student was cut from."""

    layers: tuple[int, ...]
    """The teacher's layer of each student layer, counted from 0."""
    channels: tuple[int, ...]
    """The teacher's hidden channel of each student channel, in the student's order."""

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted({*self.layers}) or self.layers[0] < 0:
            raise DistillError(
                f"layers is {self.layers}; it must name teacher layers from 0 on, each once, in "
                "increasing order"
            )
        if not self.channels or len({*self.channels}) < len(self.channels):
            raise DistillError("channels must name at least one teacher channel, and none twice")
        if min(self.channels) < 0:
            raise DistillError(f"channels holds {min(self.channels)}; channels count from 0")

    @classmethod
    def between(cls, student: nn.Module, teacher: nn.Module) -> "BlockMap":
        """Layer to layer and channel to channel. Raises DistillError where the sizes differ."""
        small, large = _sizes(student), _sizes(teacher)
        if small != large:
            raise DistillError(
                f"the student has {small[0]} layers of {small[1]} channels, the teacher "
                f"{large[0]} of {large[1]}; say which the student was cut from, as "
                "BlockMap(layers, channels)"
            )
        return cls(tuple(range(small[0])), tuple(range(small[1])))

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        """Raises DistillError where the map does not fit the two models."""
        for name, indices, student_size, teacher_size in zip(
            ("layers", "channels"),
            (self.layers, self.channels),
            _sizes(student),
            _sizes(teacher),
            strict=True,
        ):
            if len(indices) != student_size:
                raise DistillError(
                    f"{name} names {len(indices)}; it must name as many as the student has, "
                    f"{student_size}"
                )
            if max(indices) >= teacher_size:
                raise DistillError(
                    f"{name} holds {max(indices)}; the teacher's last is {teacher_size - 1}"
                )

    def inputs(self, absorb_dropped: bool) -> list[int]:
        """Per block the teacher's layer whose output it reads, or `EMBEDDINGS`."""
        if absorb_dropped:
            return [EMBEDDINGS, *(layer - 1 for layer in self.layers[1:])]
        return [layer - 1 for layer in self.layers]

    def outputs(self, depth: int, absorb_dropped: bool) -> list[int]:
        """Per block the layer of a teacher of `depth` layers whose output it learns."""
        if absorb_dropped:
            return [*(layer - 1 for layer in self.layers[1:]), depth - 1]
        return list(self.layers)


def _sizes(model: nn.Module) -> tuple[int, int]:
    """(layers, hidden channels)."""
    config: Any = model.config
    config = config.get_text_config()
    return config.num_hidden_layers, config.hidden_size
