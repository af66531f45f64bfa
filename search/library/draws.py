"""Draws of sizes: which attention and FFN a layer of the library has in each training step.

A sub-block of the teacher's own size is the teacher's, in training as in a student, so that what is
trained is what will be cut. The first steps go through all sizes; then smaller ones are drawn more
often, since they have more to learn, as probabilities in proportion to 1 / parameters.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pruning import ATTENTION, FFN, Block
from search.space.variants import LayerVariants

Pair = tuple[Block, Block]
"""Attention and FFN of a layer."""
TAG = 11
"""Sets these random numbers apart from others with the same seed."""


class Draws:
    """Sizes of one layer by step; the same whichever layers are trained beside it.

    A third of the steps trains an attention beside the teacher's FFN, a third an FFN beside the
    teacher's attention, as they are scored, and a third both together.
    """

    def __init__(
        self,
        variants: LayerVariants,
        layer: int,
        *,
        parameters: Callable[[Block], int],
        seed: int,
    ):
        """Args:
        variants: Sizes of the layer.
        layer: Its number in the teacher.
        parameters: How many an attention or FFN of the layer has.
        seed: With the layer's number and that of a step it decides what is drawn.
        """
        self.variants, self.layer = variants, layer
        self.parameters, self.seed = parameters, seed

    def at(self, step: int) -> Pair:
        """The attention and FFN of step `step`, counted from 0."""
        if step < len(self.coverage):
            return self.coverage[step]
        generator = np.random.default_rng([self.seed, TAG, self.layer, step])
        pairs, weights = self._kinds[generator.integers(len(self._kinds))]
        return pairs[generator.choice(len(pairs), p=weights)]

    @cached_property
    def coverage(self) -> list[Pair]:
        """Every size once beside the teacher's own, then the end points beside each other."""
        attentions, ffns = self.variants.trained(ATTENTION), self.variants.trained(FFN)
        alone = [(part, self.variants.ffn[0]) for part in attentions]
        alone += [(self.variants.attention[0], part) for part in ffns]
        if not (attentions and ffns):
            return alone
        return [*alone, (attentions[-1], ffns[-1]), (attentions[0], ffns[0])]

    @cached_property
    def _kinds(self) -> list[tuple[list[Pair], NDArray[np.float64]]]:
        """Pairs that train an attention, an FFN or both, each with the probability of every pair.

        A sub-block that is left out has the weight of the smallest that is not.
        """
        attentions, ffns = self.variants.trained(ATTENTION), self.variants.trained(FFN)
        others = [
            (attention, ffn)
            for attention in self.variants.attention[1:]
            for ffn in self.variants.ffn[1:]
            if attention in attentions or ffn in ffns
        ]
        kinds = [
            [(part, self.variants.ffn[0]) for part in attentions],
            [(self.variants.attention[0], part) for part in ffns],
            others,
        ]
        return [(pairs, self._probabilities(pairs)) for pairs in kinds if pairs]

    def _probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        sizes = np.array([[self.parameters(part) for part in pair] for pair in pairs], np.float64)
        smallest = np.where(sizes > 0, sizes, np.inf).min(0)
        sizes = np.where(sizes > 0, sizes, np.where(np.isfinite(smallest), smallest, 1.0))
        weights = 1 / sizes.prod(1)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares
