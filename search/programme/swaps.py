"""Combinations of blocks by swaps of single layers: greedily, or at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.programme.programme import Apart, Choice, Programme, Values, as_choice

ROUNDING = 1e-14
"""Relative excess below this may be that of sums of floats; `Programme.holds` decides."""


@dataclass(frozen=True)
class Swaps:
    """All swaps of one layer's variant for another, and how far each leaves the budget."""

    programme: Programme
    """Variants and budget."""
    apart: tuple[Apart, ...] = ()
    """Choices that the combination must differ from."""

    def excess(self, choice: Choice) -> Values:
        """Relative violations after each swap, summed, [layers, variants].

        A required sub-block that no layer has any more counts as one layer's share. Infinite for
        variants that are not offered.
        """
        programme = self.programme
        rows = np.arange(programme.layers)
        total = np.zeros(programme.scores.shape)
        unused = []
        costs = programme.costs_of(choice)
        for limit in programme.budget.limits:
            each = programme.costs[limit.cost]
            after = costs[limit.cost] + each - each[rows, choice][:, None]
            total += np.maximum(0, after / limit.most - 1)
            if limit.least is not None:
                total += np.maximum(0, 1 - after / limit.least)
            unused.append(1 - after / (limit.most * (1 - (programme.budget.tolerance or 0.0))))
        if programme.budget.tolerance is not None:
            total += np.maximum(0, np.min(unused, axis=0))
        for earlier in self.apart:
            total += self._too_near(choice, earlier)
        for mask in programme.required:
            has = mask[rows, choice]
            without = (has.sum() - has[:, None] + mask) == 0
            total += without / programme.layers
        return np.where(programme.offered, total, np.inf)

    def _too_near(self, choice: Choice, earlier: Apart) -> Values:
        rows, theirs = np.arange(self.programme.layers), np.asarray(earlier.choice)
        shared = np.asarray(choice) == theirs
        after = np.full(self.programme.scores.shape, float(shared.sum())) - shared[:, None]
        after[rows, theirs] += 1
        too_many = after - (self.programme.layers - earlier.distance)
        near: Values = np.maximum(0, too_many) / self.programme.layers
        return near

    def done(self, choice: Choice) -> bool:
        """Whether a choice meets the budget and all distances."""
        return all(each.holds(choice) for each in self.apart) and self.programme.holds(choice)


def cheapened(swaps: Swaps, choice: Choice) -> Choice | None:
    """A choice brought inside the budget: each time the swap of the least rise of the score per
    relative excess saved. None where no single swap saves anything and the budget is not met.
    """
    scores, rows = swaps.programme.scores, np.arange(swaps.programme.layers)
    while not swaps.done(choice):
        after = swaps.excess(choice)
        saved = after[0, choice[0]] - after  # to leave a layer as it is saves nothing
        rise = scores - scores[rows, choice][:, None]
        ratio = np.full(scores.shape, np.inf)
        np.divide(rise, saved, out=ratio, where=saved > ROUNDING)
        layer, variant = np.unravel_index(ratio.argmin(), ratio.shape)
        if not np.isfinite(ratio[layer, variant]):
            return None
        choice = _swapped(choice, int(layer), int(variant))
    return choice


def spent(swaps: Swaps, choice: Choice) -> Choice:
    """A choice inside the budget, bettered by the swap that lowers the score most while there is
    one that stays inside.
    """
    scores, rows = swaps.programme.scores, np.arange(swaps.programme.layers)
    while True:
        fall = scores[rows, choice][:, None] - scores
        fall[(swaps.excess(choice) > ROUNDING) | (fall <= 0)] = 0
        for place in np.argsort(-fall, axis=None, kind="stable"):
            layer, variant = np.unravel_index(place, fall.shape)
            if fall[layer, variant] <= 0:
                return choice
            other = _swapped(choice, int(layer), int(variant))
            if swaps.done(other):
                choice = other
                break
        else:
            return choice


def greedy(programme: Programme, apart: Sequence[Apart] = ()) -> Choice | None:
    """Ratio-greedy choice: the best variants everywhere, cheapened until the budget holds.

    What the last swaps saved too much is spent again. None where it ends outside the budget.
    """
    swaps = Swaps(programme, tuple(apart))
    inside = cheapened(swaps, programme.best_everywhere)
    return None if inside is None else spent(swaps, inside)


def at_random(programme: Programme, generator: np.random.Generator) -> Choice | None:
    """Random variants, swapped at random for ones that lower the excess until the budget holds.

    None where it got stuck outside. The draw is not uniform over the combinations inside.
    """
    swaps = Swaps(programme)
    choice = as_choice(np.array([generator.choice(np.flatnonzero(o)) for o in programme.offered]))
    while not swaps.done(choice):
        after = swaps.excess(choice)
        better = np.argwhere(after < after[0, choice[0]] - ROUNDING)
        if not len(better):
            return None
        layer = generator.choice(np.unique(better[:, 0]))
        variant = generator.choice(better[better[:, 0] == layer, 1])
        choice = _swapped(choice, int(layer), int(variant))
    return choice


def _swapped(choice: Choice, layer: int, variant: int) -> Choice:
    return (*choice[:layer], variant, *choice[layer + 1 :])
