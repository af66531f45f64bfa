"""Draws of sizes: which sizes a layer of the library has in each training step.

Attentions learn beside the teacher's FFN and FFNs beside the teacher's attention, as they are
scored; a sub-block of the teacher's own size is the teacher's, in training as in a student. FFNs
for layers without attention learn apart. The first steps go through all sizes; then smaller ones
are drawn more often, since they have more to learn: with probabilities in proportion to 1 /
parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pruning import ATTENTION, FFN, Block
from pruning.slicing import ALONE, size_name
from search.space.variants import NOTHING, LayerVariants

TAG = 11
"""Sets these random numbers apart from others with the same seed."""


@dataclass(frozen=True)
class Draw:
    """A size of a sub-block that is trained in a step, and the layer that it is trained in."""

    sub_block: str
    """`ATTENTION` or `FFN`: the one that is trained."""
    block: Block
    """The whole layer."""

    @property
    def name(self) -> str:
        """Of the size that is trained, as `size_name` has it."""
        return size_name(self.block, self.sub_block)

    @property
    def part(self) -> Block:
        """What is trained, alone."""
        return self.block.part(self.sub_block)


def draws_of(variants: LayerVariants, schedule: str = "") -> list[Draw]:
    """All that can be drawn for a layer in a training run.

    `schedule`, what the run trains, is "" for all attentions and FFNs that are not the teacher's
    own, `ALONE` for FFNs without attention, or the name of a single size.
    """
    if schedule == ALONE:
        left_out = NOTHING in variants.attention
        ffns = [part for part in variants.ffn if part != NOTHING] if left_out else []
        return [Draw(FFN, NOTHING.with_ffn_of(part)) for part in ffns]
    every = [
        Draw(kind, variants.replaced(kind, part))
        for kind in (ATTENTION, FFN)
        for part in variants.trained(kind)
    ]
    return [draw for draw in every if schedule in ("", draw.name)]


class DrawSampler:
    """Sampler of the draws of one layer by step; the same whichever layers are trained beside it.

    As many steps are an attention's as an FFN's.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        layer: int,
        *,
        parameters: Callable[[Block], int],
        seed: int,
    ):
        """Keep what can be drawn.

        Args:
            draws: What can be drawn, as `draws_of` has it.
            layer: Its number in the teacher.
            parameters: How many an attention or FFN of the layer has.
            seed: With the layer's number and that of a step it decides what is drawn.
        """
        self.draws, self.layer, self.seed = list(draws), layer, seed
        kinds = [[one for one in draws if one.sub_block == kind] for kind in (ATTENTION, FFN)]
        self._kinds = [kind for kind in kinds if kind]
        self._weights = [
            1 / np.array([parameters(one.part) for one in kind], np.float64) for kind in self._kinds
        ]

    def at(self, step: int) -> Draw:
        """The draw of step `step`, counted from 0."""
        if step < len(self.draws):
            return self.draws[step]
        generator = np.random.default_rng([self.seed, TAG, self.layer, step])
        number = generator.integers(len(self._kinds))
        kind, weights = self._kinds[number], self._weights[number]
        return kind[generator.choice(len(kind), p=weights / weights.sum())]
