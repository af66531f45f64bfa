"""A student with its loss as one module: what a step runs, what is compiled and what is sharded."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from distill.head import Head, Target, logits_loss, projected_loss
from distill.layers import recording
from distill.losses import Objective
from distill.states import StateMatcher


@dataclass(frozen=True)
class Answer:
    """What is known of some blocks: from the text, and from the teacher."""

    blocks: Tensor
    """int64 [batch, sequence]."""
    shares: Tensor
    """fp32 [batch, sequence, 2]: every token's weight in the distillation loss and in the
    cross-entropy; each sums to one over a whole optimiser step."""
    target: Target
    """Flattened to [batch * sequence]."""
    states: dict[int, Tensor]
    """The teacher's hidden states after the layers that are asked for."""


class Learner(nn.Module):
    """The loss of a student, weighted and summed over the tokens of an answer."""

    def __init__(self, student: Any, objective: Objective, matcher: StateMatcher | None = None):
        super().__init__()
        self.student = student
        self.matcher = matcher
        self.objective = objective
        self.head = Head.of(student)

    def forward(self, answer: Answer | Tensor) -> Tensor:
        """A scalar loss; or, for token ids [batch, sequence] alone, the student's logits.

        The loss may be differentiated once. (Both go through here because the shards of a student
        are gathered when this module is called.)
        """
        if isinstance(answer, Tensor):
            logits: Tensor = self.student(input_ids=answer, use_cache=False).logits
            return logits
        ids = answer.blocks
        labels = nn.functional.pad(ids[:, 1:], (0, 1), value=-1).flatten()
        shares = answer.shares.flatten(0, 1)
        wanted = self.matcher.student_layers if self.matcher else set()
        with recording(self.student, wanted) as states:
            if self.head is None:
                logits = self.student(input_ids=ids, use_cache=False).logits.flatten(0, 1)
                loss = logits_loss(logits, self.objective, answer.target, labels, shares)
            else:
                base = self.student.base_model(input_ids=ids, use_cache=False)
                hidden = base.last_hidden_state.flatten(0, 1)
                loss = projected_loss(
                    self.head, hidden, self.objective, answer.target, labels, shares
                )
        if self.matcher is None:
            return loss
        by_states = self.matcher(states, answer.states, shares[:, 0])
        weight = self.matcher.settings.weight
        if weight is None:
            weight = loss.detach() / by_states.detach().clamp_min(1e-12)
        return loss + weight * by_states
