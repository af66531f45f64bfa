"""Choice of one variant for every layer: scores, costs and the budget, in plain values.

The quality that a student loses is modelled as the sum of its blocks' scores, and each cost as the
sum of its blocks' costs and what lies outside the layers (Puzzle, arXiv 2411.19146).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import require
from search.config.units import shown_quantity

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Choice = tuple[int, ...]
"""Variant of each layer."""


class Limit(Protocol):
    """The limits of one cost, as `search.space.Budget` has them."""

    @property
    def cost(self) -> str:
        """Name of the cost."""

    @property
    def most(self) -> float:
        """Upper bound."""

    @property
    def least(self) -> float | None:
        """Lower bound."""


class Limits(Protocol):
    """Limits that hold together; `search.space.Budget` is one.

    With a `tolerance`, one of the limits at least is used to (1 - tolerance) of it, here as in
    every other place of a study: solutions of one budget are compared at equal cost.
    """

    @property
    def limits(self) -> Sequence[Limit]:
        """All of them."""

    @property
    def tolerance(self) -> float | None:
        """None where nothing bounds from below but bands."""

    def holds(self, costs: Mapping[str, NDArray[Any]]) -> Mask:
        """Whether students of these costs meet all of it, elementwise."""


@dataclass(frozen=True)
class Variant:
    """One pair of an attention and an FFN for one layer."""

    score: float
    """Quality that is lost with it, such as the KL in nats per token; less is better."""
    costs: Mapping[str, float]
    """Name of a cost -> how much of it this block has."""
    full_or_left_out: bool = False
    """Whether each of its sub-blocks is the teacher's own or left out."""
    has: frozenset[str] = frozenset()
    """Sub-blocks that it has, of those that one layer of a student must have at least."""


@dataclass(frozen=True)
class Solution:
    """One combination of blocks that meets the budget."""

    choice: Choice
    """Variant of each layer."""
    score: float
    """Sum of the blocks' scores."""
    costs: Mapping[str, float]
    """Every cost, with what lies outside the layers."""
    proven: bool = False
    """Whether no combination is better by more than the solver's gap."""
    gap: float | None = None
    """By how much a better one could be below its score, as a share of what its score is above that
    of the best variants everywhere; None where no bound is known."""


@dataclass(frozen=True, eq=False)
class Programme:
    """Variants of every layer, and the budget that a combination must meet."""

    scores: Values
    """[layers, variants]; infinite where there is no variant or it is not offered."""
    costs: Mapping[str, Values]
    """Name of a cost -> [layers, variants]; 0 where there is no variant."""
    fixed: Mapping[str, float]
    """Name of a cost -> what lies outside the layers (embeddings, output head, last norm)."""
    budget: Limits
    """What a combination must meet."""
    full_or_left_out: Mask
    """[layers, variants]: whether each sub-block is the teacher's own or left out."""
    refused: tuple[int, ...] = ()
    """Variants of each layer that are not offered, since a score or cost is not finite."""
    required: tuple[Mask, ...] = ()
    """Of each sub-block that one layer at least must have, [layers, variants]: which have it."""

    @classmethod
    def of(
        cls,
        layers: Sequence[Sequence[Variant]],
        *,
        budget: Limits,
        fixed: Mapping[str, float] | None = None,
    ) -> "Programme":
        """The programme of these variants; layers may have different numbers of them.

        A variant whose score or cost is not finite (a block that overflowed) keeps its number and
        is not offered: `cautions` says so.

        Raises SearchError for a layer without any that is offered.
        """
        names = {limit.cost for limit in budget.limits}
        every = [variant for layer in layers for variant in layer]
        names |= {name for variant in every for name in variant.costs}
        missing = sorted({n for n in names for variant in every if n not in variant.costs})
        require(bool(every), "there are no blocks to choose from")
        require(not missing, f"some blocks have no cost {', '.join(missing)}")
        shape = len(layers), max(len(layer) for layer in layers)
        scores, whole = np.full(shape, np.inf), np.zeros(shape, dtype=bool)
        costs = {name: np.zeros(shape) for name in sorted(names)}
        for i, layer in enumerate(layers):
            for j, variant in enumerate(layer):
                if np.isfinite([variant.score, *variant.costs.values()]).all():
                    scores[i, j], whole[i, j] = variant.score, variant.full_or_left_out
                    for name, values in costs.items():
                        values[i, j] = variant.costs[name]
        offered = np.isfinite(scores).sum(1)
        refused = tuple(len(layer) - int(n) for layer, n in zip(layers, offered, strict=True))
        having = {name: np.zeros(shape, dtype=bool) for v in every for name in sorted(v.has)}
        for i, layer in enumerate(layers):
            for j, variant in enumerate(layer):
                for name in variant.has:
                    having[name][i, j] = True
        required = tuple(having.values())
        programme = cls(scores, costs, dict(fixed or {}), budget, whole, refused, required)
        return programme._with_all_layers("with a finite score and finite costs")

    @cached_property
    def offered(self) -> Mask:
        """[layers, variants]: whether it may be chosen."""
        offered: Mask = np.isfinite(self.scores)
        return offered

    @property
    def layers(self) -> int:
        """Layers of the student."""
        return len(self.scores)

    @property
    def best_everywhere(self) -> Choice:
        """The variant of the lowest score in every layer, whatever it costs."""
        return as_choice(self.scores.argmin(1))

    def only_full_or_left_out(self) -> "Programme":
        """The programme without the variants of which a sub-block is neither.

        Raises SearchError where that leaves nothing of a layer.
        """
        left = replace(self, scores=np.where(self.full_or_left_out, self.scores, np.inf))
        return left._with_all_layers("whose sub-blocks are full or left out")

    def _with_all_layers(self, kind: str) -> "Programme":
        """The programme itself. Raises SearchError where a layer has no variant of this kind."""
        empty = np.flatnonzero(~self.offered.any(1))
        require(not len(empty), f"layer {', '.join(map(str, empty))} has no block {kind}")
        return self

    def scored(self, scores: Values) -> "Programme":
        """The same variants by other scores [layers, variants]."""
        return replace(self, scores=np.where(self.offered, scores, np.inf))

    def score_of(self, choice: Choice) -> float:
        """Sum of the scores of a choice, without rounding between them."""
        return fsum(self.scores[range(self.layers), choice].tolist())

    def costs_of(self, choice: Choice) -> dict[str, float]:
        """Every cost of a choice, without rounding between the blocks."""
        return {
            name: fsum([self.fixed.get(name, 0.0), *values[range(self.layers), choice].tolist()])
            for name, values in self.costs.items()
        }

    def holds(self, choice: Choice) -> bool:
        """Whether a choice meets the budget truly, with no solver's tolerance, and some layer has
        each sub-block that one must have."""
        if not all(mask[range(self.layers), choice].any() for mask in self.required):
            return False
        costs = {name: np.asarray(cost) for name, cost in self.costs_of(choice).items()}
        return bool(self.budget.holds(costs))

    def broken_by(self, choice: Choice) -> frozenset[str]:
        """The costs of which a choice breaks a limit; those of the tolerance are not among them."""
        costs = self.costs_of(choice)
        return frozenset(
            limit.cost
            for limit in self.budget.limits
            if costs[limit.cost] > limit.most or costs[limit.cost] < (limit.least or -np.inf)
        )

    def solution(
        self, choice: Choice, *, proven: bool = False, gap: float | None = None
    ) -> Solution:
        """A choice with its score and costs."""
        return Solution(choice, self.score_of(choice), self.costs_of(choice), proven, gap)

    def cautions(self) -> list[str]:
        """Sentences for what is not offered."""
        return [
            f"layer {layer}: {count} of its blocks not offered, since a score or cost is not finite"
            for layer, count in enumerate(self.refused)
            if count
        ]

    def shown(self, choice: Choice) -> str:
        """The limited costs of a choice in words."""
        costs = self.costs_of(choice)
        return ", ".join(shown_quantity(lim.cost, costs[lim.cost]) for lim in self.budget.limits)


def as_choice(places: NDArray[Any]) -> Choice:
    """A choice as plain integers."""
    return tuple(int(place) for place in places)


def distance(one: Choice, other: Choice) -> int:
    """Layers in which two choices differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Apart:
    """An earlier choice that the next one must differ from."""

    choice: Choice
    """Variant of each layer."""
    distance: int
    """Layers in which it must differ at least."""

    def holds(self, choice: Choice) -> bool:
        """Whether a choice differs enough."""
        return distance(choice, self.choice) >= self.distance
