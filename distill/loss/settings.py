"""Settings of the losses of hidden states."""

from dataclasses import dataclass
from typing import Any

from common.errors import DistillError

DISTANCES = ("cosine", "mse")
"""Distances of hidden states."""
_FROM_THE_END = 3
"""The layer that is compared by default, counted from the end."""


@dataclass(frozen=True)
class StateSettings:
    """Which hidden states are compared, and how."""

    pairs: list[list[int]] | None = None
    """Pairs [student layer, teacher layer], counted from 0, -1 for the embeddings; by default the
    embeddings and the last layer but two of each."""
    distance: str = "cosine"
    """cosine (1 - cosine), or mse (squared error over the teacher's square)."""
    weight: float | None = None
    """Weight of the states' loss; by default what makes it as large as the logits' loss, at every
    forward pass anew, and so of each micro-batch and worker."""

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise DistillError(
                f"distance is {self.distance!r}; it must be one of {', '.join(DISTANCES)}"
            )
        if self.weight is not None and not self.weight > 0:
            raise DistillError(f"weight is {self.weight}; it must be above zero")
        if self.pairs is not None and (
            not self.pairs or any(len(pair) != 2 for pair in self.pairs)
        ):
            raise DistillError(
                f"pairs is {self.pairs}; it must be pairs of a student and a teacher layer, such "
                "as [[-1, -1], [3, 7]]"
            )

    def resolved(self, student: Any, teacher: Any) -> list[tuple[int, int]]:
        """The pairs for two models. Raises DistillError for a layer that one of them has not."""
        from distill.backend.layers import EMBEDDINGS, decoder_layers

        depths = len(decoder_layers(student)), len(decoder_layers(teacher))
        if self.pairs is None:
            last = [max(0, depth - _FROM_THE_END) for depth in depths]
            return [(EMBEDDINGS, EMBEDDINGS), (last[0], last[1])]
        for pair in self.pairs:
            for index, depth, name in zip(pair, depths, ("student", "teacher"), strict=True):
                if not EMBEDDINGS <= index < depth:
                    raise DistillError(
                        f"pairs names layer {index} of the {name}, which has layers 0 to "
                        f"{depth - 1}; -1 is its embeddings"
                    )
        return [(pair[0], pair[1]) for pair in self.pairs]
