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
class Lesson:
    """A size of a sub-block, and the layer that it learns in."""

    sub_block: str
    """`ATTENTION` or `FFN`: the one that learns."""
    block: Block
    """The whole layer."""

    @property
    def name(self) -> str:
        """Of the size that learns, as `size_name` has it."""
        return size_name(self.block, self.sub_block)

    @property
    def part(self) -> Block:
        """What learns, alone."""
        return self.block.part(self.sub_block)


def lessons(variants: LayerVariants, course: str = "") -> list[Lesson]:
    """All that a layer learns in a run.

    `course` is "" for all attentions and FFNs that are not the teacher's own, `ALONE` for FFNs
    without attention, or the name of a single size.
    """
    if course == ALONE:
        left_out = NOTHING in variants.attention
        ffns = [part for part in variants.ffn if part != NOTHING] if left_out else []
        return [Lesson(FFN, NOTHING.with_ffn_of(part)) for part in ffns]
    every = [
        Lesson(kind, variants.replaced(kind, part))
        for kind in (ATTENTION, FFN)
        for part in variants.trained(kind)
    ]
    return [lesson for lesson in every if course in ("", lesson.name)]


class Draws:
    """Lessons of one layer by step; the same whichever layers are trained beside it.

    As many steps are an attention's as an FFN's.
    """

    def __init__(
        self,
        given: Sequence[Lesson],
        layer: int,
        *,
        parameters: Callable[[Block], int],
        seed: int,
    ):
        """Keep what a layer learns.

        Args:
            given: What there is to learn.
            layer: Its number in the teacher.
            parameters: How many an attention or FFN of the layer has.
            seed: With the layer's number and that of a step it decides what is drawn.
        """
        self.given, self.layer, self.seed = list(given), layer, seed
        kinds = [[one for one in given if one.sub_block == kind] for kind in (ATTENTION, FFN)]
        self._kinds = [kind for kind in kinds if kind]
        self._weights = [
            1 / np.array([parameters(one.part) for one in kind], np.float64) for kind in self._kinds
        ]

    def at(self, step: int) -> Lesson:
        """The lesson of step `step`, counted from 0."""
        if step < len(self.given):
            return self.given[step]
        generator = np.random.default_rng([self.seed, TAG, self.layer, step])
        number = generator.integers(len(self._kinds))
        kind, weights = self._kinds[number], self._weights[number]
        return kind[generator.choice(len(kind), p=weights / weights.sum())]
