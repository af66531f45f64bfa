"""Student and loss as one module, which is run in a step and sharded as a whole."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from distill.backend.layers import recording
from distill.loss.divergences import DistillationLoss
from distill.loss.fused_head import logits_loss, projected_loss
from distill.loss.head import Head
from distill.loss.hidden_states import HiddenStateMatcher
from distill.loss.supervision import Supervision, Target


@dataclass(frozen=True)
class SupervisedBatch:
    """Blocks of text with the teacher's answers to them."""

    blocks: Tensor
    """Token ids, int64 [batch, sequence]."""
    token_weights: Tensor
    """fp32 [batch, sequence, 2]: every token's weight in the distillation loss and in the
    cross-entropy; each sums to one over a whole optimiser step."""
    target: Target
    """Flattened to [batch * sequence]."""
    hidden_states: dict[int, Tensor]
    """The teacher's [batch, sequence, hidden] after the layers that are asked for."""


class DistillationModule(nn.Module):
    """Student and loss: gives the loss, weighted and summed over the tokens of a batch."""

    def __init__(
        self,
        student: Any,
        loss: DistillationLoss,
        matcher: HiddenStateMatcher | None = None,
        *,
        compiled: bool = False,
    ):
        """`compiled` has torch compile the loss and its gradient, which pays on a GPU."""
        super().__init__()
        self.compiled = compiled
        self.student = student
        self.matcher = matcher
        self.loss = loss
        self.head = Head.of(student)

    def forward(self, batch: SupervisedBatch | Tensor) -> Tensor:
        """A scalar loss; or, for token ids [batch, sequence] alone, the student's logits.

        The loss may be differentiated once. (Both go through here because the shards of a student
        are gathered when this module is called.)
        """
        if isinstance(batch, Tensor):
            logits: Tensor = self.student(input_ids=batch, use_cache=False).logits
            return logits
        ids = batch.blocks
        labels = nn.functional.pad(ids[:, 1:], (0, 1), value=-1).flatten()
        token_weights = batch.token_weights.flatten(0, 1)
        supervision = Supervision(self.loss, batch.target, labels, token_weights)
        wanted = self.matcher.student_layers if self.matcher else set()
        with recording(self.student, wanted) as hidden_states:
            if self.head is None:
                logits = self.student(input_ids=ids, use_cache=False).logits.flatten(0, 1)
                loss = logits_loss(logits, supervision, compiled=self.compiled)
            else:
                base = self.student.base_model(input_ids=ids, use_cache=False)
                hidden = base.last_hidden_state.flatten(0, 1)
                loss = projected_loss(self.head, hidden, supervision, compiled=self.compiled)
        if self.matcher is None:
            return loss
        by_states: Tensor = self.matcher(
            hidden_states, batch.hidden_states, token_weights=token_weights[:, 0]
        )
        weight: Tensor | float | None = self.matcher.settings.weight
        if weight is None:
            weight = loss.detach() / by_states.detach().clamp_min(1e-12)
        return loss + weight * by_states
