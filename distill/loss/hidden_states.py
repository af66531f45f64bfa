"""Hidden-state matching: student layers learn to follow teacher layers.

A learned projection takes a student's hidden states to the teacher's width; it is trained with the
student and dropped at the end. Helps where much of the depth is cut (Minitron, arXiv 2407.14679).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import DistillError
from distill.backend.layers import EMBEDDINGS, decoder_layers

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


class HiddenStateMatcher(nn.Module):
    """Projections of the pairs, and the distance of the projected states from the teacher's."""

    def __init__(self, settings: StateSettings, student: Any, teacher: Any):
        super().__init__()
        self.settings = settings
        self.pairs = settings.resolved(student, teacher)
        width = student.config.get_text_config().hidden_size
        wider = teacher.config.get_text_config().hidden_size
        device = next(student.parameters()).device
        self.projections = nn.ModuleList(
            nn.Linear(width, wider, bias=False, device=device) for _ in self.pairs
        )
        for projection in self.projections:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                start = torch.eye(wider) if width == wider else _orthogonal(wider, width)
                projection.weight.copy_(start)  # type: ignore[operator]

    @property
    def student_layers(self) -> set[int]:
        """Layers of the student whose states are compared."""
        return {pair[0] for pair in self.pairs}

    @property
    def teacher_layers(self) -> set[int]:
        """Layers of the teacher whose states are compared."""
        return {pair[1] for pair in self.pairs}

    def forward(
        self, student: dict[int, Tensor], teacher: dict[int, Tensor], *, token_weights: Tensor
    ) -> Tensor:
        """The distance of hidden states [batch, sequence, hidden] of both models, by layer.

        A weighted sum over tokens and a mean over pairs; `token_weights` [tokens].
        """
        losses = []
        for pair, projection in zip(self.pairs, self.projections, strict=True):
            projected = projection(student[pair[0]]).flatten(0, 1).float()
            wanted = teacher[pair[1]].flatten(0, 1).to(projected)
            if self.settings.distance == "cosine":
                distance = 1 - nn.functional.cosine_similarity(projected, wanted, dim=-1)
            else:
                error = (projected - wanted).square().sum(-1)
                distance = error / wanted.square().sum(-1).clamp_min(1e-12)
            losses.append((distance * token_weights).sum())
        return torch.stack(losses).mean()


def _orthogonal(rows: int, columns: int) -> Tensor:
    matrix = torch.empty(rows, columns)
    nn.init.orthogonal_(matrix)
    return matrix
