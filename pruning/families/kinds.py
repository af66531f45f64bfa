"""Kinds of layers: which a shallower student keeps of each, where they differ in kind.

Kinds compete unfairly by importance: leaving out one of few attention layers costs little of the
perplexity and much of the recall. A student keeps of each kind its share instead, and of each the
most important ones; its size is then known before importance is measured.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from common.errors import PruningError
from pruning.families.block import ATTENTION

Kind = tuple[str, ...]
"""Parts that a layer has, and what tells it from others with the same parts."""
STAYS = "always kept"
"""Said of a layer that every student has."""


@dataclass(frozen=True)
class LayerShares:
    """A rule of how many layers of each kind a student of any depth keeps: its share of them."""

    least: Mapping[str, int] = field(default_factory=dict)
    """Part of a layer -> layers with it that stay at least; one with attention does always."""

    def counts(self, kinds: Sequence[Kind]) -> dict[Kind, NDArray[np.int64]]:
        """Kind -> layers of it, by the student's depth from 0 on, of a model whose layers are of
        these `kinds`.

        Depths that the floors do not allow have no layers at all; see `fewest`.
        """
        return dict(_counts(tuple(self.least.items()), tuple(kinds)))

    def _all_counts(self, kinds: Sequence[Kind]) -> dict[Kind, NDArray[np.int64]]:
        total = Counter(kinds)
        table = {kind: np.zeros(len(kinds) + 1, dtype=np.int64) for kind in total}
        for depth in range(self.fewest(kinds), len(kinds) + 1):
            for kind, count in self._at(depth, total).items():
                table[kind][depth] = count
        for numbers in table.values():
            numbers.flags.writeable = False
        return table

    def fewest(self, kinds: Sequence[Kind]) -> int:
        """The smallest depth that the floors allow; raises PruningError for floors that the model
        itself does not meet."""
        total = Counter(kinds)
        return max(1, sum(self._floor(total).values()))

    def check(self, kinds: Sequence[Kind]) -> None:
        """Raises PruningError for floors that a model whose layers are of these `kinds` does not
        meet, and for any where they are all of one."""
        if self.least and len(set(kinds)) == 1:
            raise PruningError(
                "least_layers is given, but all layers of the teacher are of one kind, of which "
                "any may go; leave it out"
            )
        self.fewest(kinds)

    def _at(self, depth: int, total: Mapping[Kind, int]) -> dict[Kind, int]:
        """By the largest remainder, from the floors on."""
        counts = self._floor(total)
        layers = sum(total.values())
        while sum(counts.values()) < depth:
            behind = {kind: total[kind] * depth / layers - counts[kind] for kind in total}
            # The first kind of equal ones, in the order of the model: the same on every machine.
            kind = max((k for k in total if counts[k] < total[k]), key=lambda k: behind[k])
            counts[kind] += 1
        return counts

    def _floor(self, total: Mapping[Kind, int]) -> dict[Kind, int]:
        """Fewest layers of each kind; a floor of a part is that of the kinds that have it."""
        counts = {kind: count if STAYS in kind else 0 for kind, count in total.items()}
        for part, least in ({ATTENTION: 1} | dict(self.least)).items():
            having = [kind for kind in total if part in kind]
            most = sum(total[kind] for kind in having)
            if part in self.least and least > most:
                raise PruningError(
                    f"at least {least} layers with {part} are to stay; the teacher has {most}"
                )
            while having and sum(counts[kind] for kind in having) < least:
                free = [kind for kind in having if counts[kind] < total[kind]]
                kind = min(free, key=lambda k: counts[k] / total[k])
                counts[kind] += 1
        return counts


@cache  # asked for each cost of each architecture
def _counts(
    least: tuple[tuple[str, int], ...], kinds: tuple[Kind, ...]
) -> dict[Kind, NDArray[np.int64]]:
    return LayerShares(dict(least))._all_counts(kinds)


ALL_SHARES = LayerShares()
"""Of each kind its share, and attention somewhere."""
