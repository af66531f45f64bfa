"""Live teacher: runs beside the student, in place of stored targets.

For a corpus that is read once, or where intermediate states are wanted. The teacher may sit on
another device than the student; only its last hidden states travel, never its logits.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from distill.backend.layers import recording
from distill.backend.precision import autocast
from distill.loss.head import Head
from distill.loss.supervision import Target, TeacherHead
from distill.targets.batch import TargetBatch


class LiveTeacher:
    """Source of targets that runs the teacher on each batch."""

    def __init__(self, model: Any, vocabulary: int, *, temperature: float, precision: str):
        """Answer with `model`, whose weights are frozen.

        Args:
            model: A stock causal LM.
            vocabulary: Tokens that both models know; columns of its logits beyond are padding.
            temperature: Divides its logits.
            precision: That of its forward pass: bf16, tf32 or fp32.
        """
        self.model = model.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self.temperature = temperature
        self.precision = precision
        self.head = Head.of(model)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def answer(
        self, blocks: Tensor, layers: Collection[int] = ()
    ) -> tuple[Target, dict[int, Tensor]]:
        """Targets of `blocks` [batch, sequence], flattened, and the hidden states after `layers`.

        The states are [batch, sequence, hidden]. All are on the device of `blocks`.
        """
        ids = blocks.to(self.device)
        with autocast(self.device, self.precision), recording(self.model, layers) as recorded:
            if self.head is None:
                logits = self.model(input_ids=ids, use_cache=False).logits
            else:
                hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        hidden_states = {index: state.to(blocks.device) for index, state in recorded.items()}
        if self.head is None:
            scaled = logits[..., : self.vocabulary].float().flatten(0, 1) / self.temperature
            log_probs = scaled.log_softmax(-1).to(blocks.device)
            return TargetBatch.whole(log_probs), hidden_states
        flat = hidden.flatten(0, 1)
        head = TeacherHead(self.head, flat, self.vocabulary, self.temperature, blocks.device)
        return head, hidden_states
