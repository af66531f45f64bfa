"""Which block every step reads: the same for every run of a study.

Slots number the training blocks in the study's order; targets are stored by slot. A run reads slots
0, 1, 2, ...; a replicate (`shuffle` > 0) reads the same slots in another order; later passes over
the corpus are shuffled anew.
"""

import numpy as np
from numpy.typing import NDArray


def slot_blocks(available: int, seed: int) -> NDArray[np.int64]:
    """The training block of each slot."""
    return np.random.default_rng([seed, 0]).permutation(available)


def slot_sequence(count: int, available: int, seed: int, shuffle: int) -> NDArray[np.int64]:
    """The `count` slots that a run reads, in order, of `available` training blocks."""
    passes = []
    for epoch in range(-(-count // available)):
        slots = np.arange(available)
        if epoch:
            slots = np.random.default_rng([seed, 2, epoch]).permutation(slots)
        slots = slots[: count - epoch * available]
        if shuffle:
            slots = np.random.default_rng([seed, 1, shuffle, epoch]).permutation(slots)
        passes.append(slots)
    return np.concatenate(passes)
