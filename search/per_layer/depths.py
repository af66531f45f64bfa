"""The programme of every depth: which layers of the teacher stay, and the blocks that each may be.

Depth lies outside of the programme: whole layers are left out by their importance (as for all other
students), and the blocks of those that stay are chosen for each depth alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.errors import SearchError
from pruning import ATTENTION, FFN, Architecture, Block, architecture_of
from search.programme import Programme, SolverSettings, Variant
from search.programme.integer_programme import nearest
from search.programme.programme import Choice
from search.programme.solver import best
from search.space.block_costs import BlockCosts
from search.space.budget import Budget, shown_costs
from search.space.variants import LayerVariants

ScoreOf = Callable[[int, Block], float]
"""Score of a layer of the teacher that is replaced by a block."""
NEAREST_SECONDS = 10.0
"""For the combination that comes nearest to a budget that none meets, at each depth."""


def unscored(layer: int, block: Block) -> float:
    """The score of every block where only the budget counts."""
    return 0.0


@dataclass(frozen=True, eq=False)
class Depth:
    """Students of one depth: the layers that they keep, and the blocks of each."""

    hidden: int
    """Of the teacher, which all of them keep."""
    kept: tuple[int, ...]
    """Layers of the teacher."""
    contiguous: int
    """Of `Architecture`: whether the layers left out are one span."""
    blocks: tuple[tuple[Block, ...], ...]
    """Variants of each layer that is kept."""
    programme: Programme
    """Costs of the variants, and their scores."""

    @classmethod
    def of(
        cls,
        kept: Sequence[int],
        variants: Sequence[LayerVariants],
        *,
        costs: BlockCosts,
        score_of: ScoreOf = unscored,
        contiguous: int = 0,
    ) -> "Depth":
        """The depth with these layers of a teacher with the `variants`."""
        blocks = tuple(
            tuple(attention.with_ffn_of(ffn) for attention, ffn in variants[layer].pairs)
            for layer in kept
        )
        layers = [
            [
                Variant(
                    score_of(layer, block),
                    costs.of(block, layer),
                    full_or_left_out=_full_or_left_out(block, variants[layer]),
                    has=frozenset(each for each in (ATTENTION, FFN) if block.has(each)),
                )
                for block in own
            ]
            for layer, own in zip(kept, blocks, strict=True)
        ]
        programme = Programme.of(layers, budget=costs.budget, fixed=costs.fixed)
        hidden = architecture_of(costs.model.config).hidden
        return cls(hidden, tuple(kept), contiguous, blocks, programme)

    def architecture(self, choice: Choice) -> Architecture:
        """The student with the chosen variants."""
        chosen = [own[place] for own, place in zip(self.blocks, choice, strict=True)]
        return Architecture.of_blocks(self.hidden, chosen, contiguous=self.contiguous)

    def choice(self, architecture: Architecture) -> Choice:
        """The variants of a student that `architecture` gave."""
        return tuple(own.index(architecture.block(place)) for place, own in enumerate(self.blocks))

    @cached_property
    def may_fit(self) -> bool:
        """Whether the cheapest and the dearest blocks leave a way to meet the budget."""
        programme, budget = self.programme, self.programme.budget
        least, most = self._ends(np.min, np.inf), self._ends(np.max, -np.inf)
        under = all(least[limit.cost] <= limit.most for limit in budget.limits)
        over = all(
            limit.least is None or most[limit.cost] >= limit.least for limit in budget.limits
        )
        share = 1 - (programme.budget.tolerance or 0.0)
        used = budget.tolerance is None or any(
            most[limit.cost] >= share * limit.most for limit in budget.limits
        )
        return under and over and used

    def _ends(self, end: Callable[..., np.ndarray], missing: float) -> dict[str, float]:
        programme = self.programme
        return {
            name: programme.fixed.get(name, 0.0)
            + float(end(np.where(programme.offered, values, missing), axis=1).sum())
            for name, values in programme.costs.items()
        }

    def fits(self) -> bool:
        """Whether any combination meets the budget."""
        try:
            best(self.programme, SolverSettings(1, gap=0.5, time_limit=NEAREST_SECONDS))
        except SearchError:
            return False
        return True


def chosen_depths(depths: Sequence[Depth], most: int) -> list[Depth]:
    """At most so many of the depths that can meet the budget: the deepest, and others evenly
    spread.

    Raises SearchError, with the nearest combination, where none can.
    """
    possible = sorted((d for d in depths if d.may_fit), key=lambda depth: -len(depth.kept))
    count = min(most, len(possible))
    spread = [possible[place * len(possible) // count] for place in range(count)]
    found = [depth for depth in spread if depth.fits()]
    found = found or [depth for depth in possible if depth not in spread and depth.fits()][:most]
    if not found:
        raise SearchError(_nothing_meets(depths))
    return found


def _nothing_meets(depths: Sequence[Depth]) -> str:
    """The sentence that names the combination of any depth that comes nearest to the budget."""
    budget = depths[0].programme.budget
    assert isinstance(budget, Budget)
    found = []
    for depth in depths:
        answer = nearest(depth.programme, gap=1e-3, seconds=NEAREST_SECONDS)
        choice = depth.programme.best_everywhere if answer.choice is None else answer.choice
        costs = depth.programme.costs_of(choice)
        arrays = {name: np.asarray(cost) for name, cost in costs.items()}
        found.append((float(budget.violations(arrays)), depth.architecture(choice), costs))
    _, shape, costs = min(found, key=lambda one: one[0])
    return (
        f"no combination of blocks of --space.per_layer meets the budget of {budget}; the nearest "
        f"is {shape} with {shown_costs(costs, budget)}; change --budget or widen --per_layer"
    )


def _full_or_left_out(block: Block, variants: LayerVariants) -> bool:
    """Whether each sub-block is the teacher's own or left out."""
    parent = variants.parent
    return all(
        block.part(each) == parent.part(each) or not block.has(each) for each in (ATTENTION, FFN)
    )
