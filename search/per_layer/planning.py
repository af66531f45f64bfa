"""Plan of a study whose students may have other sizes in every layer, checked before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm

from transformers import PretrainedConfig

from common.errors import SearchError
from pruning import (
    ATTENTION,
    FFN,
    Architecture,
    PruningError,
    Served,
)
from pruning.slicing import part_name
from search.config.study import SearchConfig
from search.per_layer.depths import Depth, ScoreOf, chosen_depths, unscored
from search.space.block_costs import BlockCosts
from search.space.budget import Budget
from search.space.space import Space
from search.space.variants import LayerVariants, variants_of, with_layer


@dataclass(frozen=True)
class PerLayerPlan:
    """Blocks that every layer may be, and the depths of students."""

    variants: tuple[LayerVariants, ...]
    """Of each of the teacher's layers."""
    budget: Budget
    """What a student may cost."""
    space: Space
    """The uniform students of the same budget, and what students cost."""
    most_depths: int
    """Depths that are solved."""

    @property
    def depths(self) -> list[int]:
        """Numbers of layers that a student may have."""
        return self.space.choices["layers"]

    @property
    def enclosing(self) -> tuple[Architecture, float]:
        """An architecture that is nowhere smaller than a student, and a bound of its parameters."""
        teacher, costs = self.space.teacher, self.space.costs
        whole = float(costs.of_teacher(["parameters"])["parameters"])
        return teacher, self.budget.most("parameters") or whole

    @property
    def contiguous(self) -> int:
        """How layers are left out, as in `Architecture`; where the search may choose, by rank."""
        return self.space.choices["contiguous"][0]

    def shape(self, layers: int) -> Architecture:
        """The teacher with so many layers, which says which of them are kept."""
        contiguous = self.contiguous if layers < self.space.teacher.layers else 0
        return replace(self.space.teacher, layers=layers, contiguous=contiguous)

    def describe(self) -> list[str]:
        """The blocks, as they are printed before anything starts."""
        lines = []
        for sub_block in (ATTENTION, FFN):
            sizes = dict.fromkeys(
                part_name(part) if part.has(sub_block) else "none"
                for variants in self.variants
                for part in variants.of(sub_block)
            )
            lines.append(f"per-layer: {sub_block:9} {', '.join(sizes)}")
        depths = ", ".join(map(str, self.depths))
        lines.append(f"per-layer: at most {self.most_depths} of the depths {depths}")
        return lines

    def require_feasible(self) -> None:
        """Raises SearchError where no combination meets the budget, as far as that is known before
        it is known which layers of the teacher are kept: where all its layers are alike."""
        kinds = BlockCosts(self.space.costs, self.budget).kinds
        if len(set(self.variants)) == 1 and len(set(kinds)) == 1:
            self.chosen({count: list(range(count)) for count in self.depths})

    def chosen(self, kept: dict[int, list[int]], score_of: ScoreOf = unscored) -> list[Depth]:
        """The depths that are solved, of those whose layers are `kept`; the deepest first.

        Raises SearchError, with the nearest combination, where none meets the budget.
        """
        costs = BlockCosts(self.space.costs, self.budget)
        depths = [
            Depth.of(
                layers,
                self.variants,
                costs=costs,
                score_of=score_of,
                contiguous=self.shape(count).contiguous,
            )
            for count, layers in kept.items()
        ]
        return chosen_depths(depths, self.most_depths)


def layer_variants(
    config: SearchConfig, teacher: PretrainedConfig, *, block: int
) -> tuple[LayerVariants, ...]:
    """The blocks that each of the teacher's layers may be; () where no sub-block may differ.

    `block` are the tokens of a sequence.

    Raises SearchError where a sub-block that may differ has no other size in any layer, or none
    that the engines take.
    """
    if not config.space.per_layer:
        return ()
    served = Served(teacher, tuple(config.serve_with))
    multiple = lcm(served.multiples.get("ffn", 1), config.space.multiples.get("ffn", 1))
    wanted = config.space.per_layer
    every = variants_of(
        teacher, config.per_layer, sub_blocks=wanted, block=block, multiple=multiple
    )
    _require_another(
        every, wanted, why=f"in a {teacher.model_type} model with --per_layer as it is"
    )
    if not served.engines:
        return tuple(every)
    taken = [_served(variants, layer, served) for layer, variants in enumerate(every)]
    engines = " and ".join(served.engines)
    _require_another(taken, wanted, why=f"that {engines} takes{_reason(every, served)}")
    return tuple(taken)


def _require_another(every: Sequence[LayerVariants], wanted: Sequence[str], *, why: str) -> None:
    for sub_block in wanted:
        if all(len(variants.of(sub_block)) == 1 for variants in every):
            raise SearchError(
                f"--space.per_layer has {sub_block}, but no layer can have another {sub_block} "
                f"{why}; leave it out"
            )


def _served(variants: LayerVariants, layer: int, served: Served) -> LayerVariants:
    """Those that the engines take in a student that is whole elsewhere."""
    parts = {
        sub_block: tuple(
            part
            for part in variants.of(sub_block)
            if part == variants.of(sub_block)[0]
            or served.holds(
                with_layer(served.config, layer, block=variants.replaced(sub_block, part))
            )
        )
        for sub_block in (ATTENTION, FFN)
    }
    return LayerVariants(parts[ATTENTION], parts[FFN])


def _reason(every: Sequence[LayerVariants], served: Served) -> str:
    """Why engines do not take the first block that is not the teacher's own."""
    for layer, variants in enumerate(every):
        for sub_block in (ATTENTION, FFN):
            for part in variants.of(sub_block)[1:]:
                try:
                    block = variants.replaced(sub_block, part)
                    served.check(with_layer(served.config, layer, block=block))
                except PruningError as problem:
                    return f" ({problem})"
    return ""
