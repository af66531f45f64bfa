"""Measures of a model against its teacher, token by token: less is better, and 0 is the teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from search.config.per_layer import (
    COSINE_SCORE,
    JENSEN_SHANNON,
    KL_SCORE,
    LOSS_SCORE,
    REVERSE_KL,
)

CHUNK_ELEMENTS = 2**24
"""Of log-probabilities that are compared at once."""


@dataclass(frozen=True)
class Measure:
    """What a model's answers cost, beside the teacher's."""

    name: str
    """One of `BLOCK_SCORES`."""

    def answers(self, model: Any, ids: Tensor) -> Tensor:
        """What is compared: logits [batch, sequence, vocab], or the last hidden states, of `ids`
        [batch, sequence]."""
        if self.name == COSINE_SCORE:
            states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return states
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits

    def by_sequence(
        self, teacher: Tensor, child: Tensor, ids: Tensor, *, counted: Tensor | None
    ) -> Tensor:
        """Mean of the tokens that count [batch], in fp64.

        Args:
            teacher: Its answers [batch, sequence, ...].
            child: Those of the model that is measured.
            ids: The text [batch, sequence].
            counted: Whether the prediction at a token counts [batch, sequence]; None: all do.
        """
        if self.name == LOSS_SCORE:  # what follows the last token is not known
            teacher, child, ids = teacher[:, :-1], child[:, :-1], ids[:, 1:]
            counted = None if counted is None else counted[:, :-1]
        rows = max(1, CHUNK_ELEMENTS // child.shape[-1])
        flat = (teacher.flatten(0, 1), child.flatten(0, 1), ids.flatten())
        pieces = zip(*(tensor.split(rows) for tensor in flat), strict=True)
        values = torch.cat([MEASURES[self.name](*piece) for piece in pieces]).double().view_as(ids)
        if counted is None:
            return values.mean(1)
        return (values * counted).sum(1) / counted.sum(1)


def _log_probs(teacher: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
    return teacher.float().log_softmax(-1), child.float().log_softmax(-1)


def _kl(teacher: Tensor, child: Tensor, _: Tensor) -> Tensor:
    p, q = _log_probs(teacher, child)
    return (p.exp() * (p - q)).sum(-1)


def _reverse_kl(teacher: Tensor, child: Tensor, following: Tensor) -> Tensor:
    return _kl(child, teacher, following)


def _jensen_shannon(teacher: Tensor, child: Tensor, _: Tensor) -> Tensor:
    p, q = _log_probs(teacher, child)
    middle = torch.logaddexp(p, q) - log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2


def _loss(_: Tensor, child: Tensor, following: Tensor) -> Tensor:
    return functional.cross_entropy(child.float(), following, reduction="none")


def _cosine(teacher: Tensor, child: Tensor, _: Tensor) -> Tensor:
    one, other = (functional.normalize(states.float(), dim=-1) for states in (teacher, child))
    return (one - other).square().sum(-1) / 2  # 1 - cosine, and exactly 0 for the same


MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    KL_SCORE: _kl,
    REVERSE_KL: _reverse_kl,
    JENSEN_SHANNON: _jensen_shannon,
    LOSS_SCORE: _loss,
    COSINE_SCORE: _cosine,
}
