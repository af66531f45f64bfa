"""Batches of teacher targets: the distributions at some tokens, as losses read them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class TargetBatch:
    """Targets of some blocks: `ids` is None where the whole distribution is stored."""

    ids: Tensor | None
    """int64 [blocks, sequence, k]; drawn tokens and the k likeliest are by falling probability."""
    log_probs: Tensor
    """fp32 [blocks, sequence, k or vocab], the teacher's log-probability of each entry."""
    tail_probability: Tensor
    """fp32 [blocks, sequence], the probability of all tokens without an entry; 0 for draws."""
    share: Tensor | None = None
    """Of drawn tokens only: fp32 [blocks, sequence, k], the share of the draws that fell on the
    entry; sums to 1 over k. Where fewer than k tokens were drawn, entries of share 0 follow, with
    id 0 and log-probability 0."""

    @classmethod
    def whole(cls, log_probs: Tensor) -> "TargetBatch":
        """The whole distribution, of log-probabilities [..., vocab]."""
        return cls(None, log_probs, log_probs.new_zeros(log_probs.shape[:-1]))

    def tokens(self) -> "TargetBatch":
        """The same with one first dimension, [blocks * sequence], for blocks and sequence."""
        return self._each(lambda tensor: tensor.flatten(0, 1))

    def slice(self, start: int, stop: int) -> "TargetBatch":
        """`start` to `stop` of the first dimension; the memory is shared."""
        return self._each(lambda tensor: tensor[start:stop])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TargetBatch":
        return replace(
            self,
            ids=None if self.ids is None else change(self.ids),
            log_probs=change(self.log_probs),
            tail_probability=change(self.tail_probability),
            share=None if self.share is None else change(self.share),
        )
