"""Deterministic order of training sequences, shared by all runs of a study.

Slots number the training blocks in the study's order; targets are stored by slot. A run reads slots
0, 1, 2, ...; a replicate (`shuffle` > 0) reads the same slots in another order; later passes over
the corpus are shuffled anew.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def slot_blocks(available: int, seed: int) -> NDArray[np.int64]:
    """The training block of each slot."""
    return np.random.default_rng([seed, 0]).permutation(available)


class SlotSequence:
    """Sequence of the slots that a run reads; a pass over the corpus is drawn when it is read."""

    def __init__(self, count: int, available: int, *, seed: int, shuffle: int = 0):
        """`count` slots of `available` training blocks."""
        self.count, self.available = count, available
        self.seed, self.shuffle = seed, shuffle
        self._pass = lru_cache(maxsize=2)(self._slots_of_pass)

    def __getitem__(self, slots: slice) -> NDArray[np.int64]:
        start, stop, _ = slots.indices(self.count)
        parts = [np.empty(0, np.int64)]
        for epoch in range(start // self.available, -(-stop // self.available)):
            first = epoch * self.available
            parts.append(self._pass(epoch)[max(0, start - first) : stop - first])
        return np.concatenate(parts)

    def _slots_of_pass(self, epoch: int) -> NDArray[np.int64]:
        slots = np.arange(self.available)
        if epoch:
            slots = np.random.default_rng([self.seed, 2, epoch]).permutation(slots)
        slots = slots[: self.count - epoch * self.available]
        if self.shuffle:
            slots = np.random.default_rng([self.seed, 1, self.shuffle, epoch]).permutation(slots)
        return slots
