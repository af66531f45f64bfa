"""A teacher that runs beside the student, in place of stored targets.

For a corpus that is read once, or where intermediate states are wanted. The teacher may sit on
another device than the student; only its last hidden states travel, never its logits.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from distill.head import Head, Target, TeacherHead
from distill.layers import recording
from distill.precision import autocast
from distill.target_batch import TargetBatch


class LiveTeacher:
    """The teacher's forward pass as a source of targets."""

    def __init__(self, model: Any, vocabulary: int, temperature: float, precision: str):
        self.model = model.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self.temperature = temperature
        self.precision = precision
        self.head = Head.of(model)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def answer(
        self, blocks: Tensor, wanted: Collection[int] = ()
    ) -> tuple[Target, dict[int, Tensor]]:
        """Targets of `blocks` [batch, sequence], flattened, and states after the layers `wanted`.

        Both are on the device of `blocks`.
        """
        ids = blocks.to(self.device)
        with autocast(self.device, self.precision), recording(self.model, wanted) as states:
            if self.head is None:
                logits = self.model(input_ids=ids, use_cache=False).logits
            else:
                hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        found = {index: state.to(blocks.device) for index, state in states.items()}
        if self.head is None:
            scaled = logits[..., : self.vocabulary].float().flatten(0, 1) / self.temperature
            log_probs = scaled.log_softmax(-1).to(blocks.device)
            return TargetBatch.whole(log_probs), found
        flat = hidden.flatten(0, 1)
        head = TeacherHead(self.head, flat, self.vocabulary, self.temperature, blocks.device)
        return head, found
