"""Hidden-state matching: student layers learn to follow teacher layers.

A learned projection takes a student's hidden states to the teacher's width; it is trained with the
student and dropped at the end. Helps where much of the depth is cut (Minitron, arXiv 2407.14679).
"""

from typing import Any

import torch
from torch import Tensor, nn

from distill.loss.settings import StateSettings


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
