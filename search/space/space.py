"""Space: the architectures that a study may try, choices per axis inside the budget.

Everything is enumerated with array arithmetic (no model is built), so that a proposal is inside the
budget by construction.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from common.errors import SearchError
from pruning import (
    Architecture,
    ArchitectureGrid,
    PruningError,
    Served,
    architecture_of,
    check_architecture,
    is_legal,
)
from pruning.families import WIDTHS
from search.config.space import SpaceConfig
from search.space.anchors import CUT_AXES, UNIFORM, unevenness
from search.space.budget import Budget, nearest, shown_costs
from search.space.choices import RANKED, SEARCHED, SPAN, Narrowing, choices_of
from search.space.costs import CostModel

NO_NARROWING = Narrowing()


@dataclass(frozen=True)
class Space:
    """Choices per axis and the legal architectures in the budget's band."""

    teacher: Architecture
    """Sizes of the teacher."""
    choices: dict[str, list[int]]
    """Axis -> sizes that are tried, in ascending order."""
    legal_count: int
    """Architectures that can be cut out of the teacher, whatever their size."""
    feasible: tuple[Architecture, ...]
    """Those in the band, in a fixed order."""
    parameters: tuple[int, ...]
    """Parameters of each of `feasible`."""
    costs: CostModel
    """What each architecture costs besides its parameters."""
    served: Served
    """Engines that take all of them."""
    not_served: int = 0
    """Architectures that could be cut, and that an engine does not take."""

    @classmethod
    def build(
        cls,
        config: PretrainedConfig,
        given: SpaceConfig,
        *,
        budget: Budget,
        costs: CostModel,
        narrowing: Narrowing = NO_NARROWING,
    ) -> "Space":
        """The space of students of a teacher.

        Args:
            config: Of the teacher.
            given: Choices of the user.
            budget: Limits that all architectures meet.
            costs: What architectures cost.
            narrowing: What else decides about the choices.

        Raises:
            SearchError: The choices cannot be, or nothing meets the budget.
        """
        teacher, served = architecture_of(config), Served(config, narrowing.serve_with)
        choices = choices_of(config, given, narrowing=narrowing)
        grid = _grid(choices, teacher)
        legal = is_legal(config, grid) & _distinct(grid, choices, teacher=teacher)
        cuttable = int(legal.sum())
        if not cuttable:
            raise SearchError(_nothing_legal(config, grid[-1]))
        legal = legal & served.holds(grid)
        if not legal.any():
            raise SearchError(_nothing_served(served, grid[-1]))
        spent = costs.costs(grid, {"parameters", *budget.costs})
        inside = legal & budget.holds(spent)
        if not inside.any():
            raise SearchError(_nothing_inside(grid, legal, spent=spent, budget=budget))
        return cls(
            teacher=teacher,
            choices=choices,
            legal_count=int(legal.sum()),
            feasible=tuple(grid.where(inside)),
            parameters=tuple(spent["parameters"][inside].tolist()),
            costs=costs,
            served=served,
            not_served=cuttable - int(legal.sum()),
        )

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a proposal chooses: those that the teacher has, and those with a choice."""
        always = ("layers", "hidden", "heads", "ffn", "experts", "expert_ffn")
        sizes = [axis for axis in always if getattr(self.teacher, axis)]
        others = [axis for axis in SEARCHED if axis not in always]
        others.remove("kv_heads")
        if self._grouped:
            others.insert(0, "kv_heads")
        return (*sizes, *(axis for axis in others if len(self.choices[axis]) > 1))

    @property
    def _grouped(self) -> bool:
        return self.teacher.heads != self.teacher.kv_heads

    @cached_property
    def parameters_of(self) -> dict[Architecture, int]:
        """Parameters of each feasible architecture."""
        return dict(zip(self.feasible, self.parameters, strict=True))

    def parameter_count(self, architecture: Architecture) -> int:
        """Parameters of any architecture, of the space or not, such as a per-layer one."""
        known = self.parameters_of.get(architecture)
        if known is not None:
            return known
        return int(self.costs.costs(architecture, ["parameters"])["parameters"])

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Place of each feasible architecture on the searched axes, each scaled to [0, 1]."""
        return np.array([self.position(architecture) for architecture in self.feasible])

    def position(self, architecture: Architecture) -> list[float]:
        """Place of an architecture on the searched axes, each scaled to [0, 1]."""
        scaled = []
        for axis in self.axes:
            low, high = self.choices[axis][0], self.choices[axis][-1]
            scaled.append((getattr(architecture, axis) - low) / max(1, high - low))
        return scaled

    def params(self, architecture: Architecture) -> dict[str, int]:
        """The searched axes of an architecture, as Optuna stores them."""
        return {axis: getattr(architecture, axis) for axis in self.axes}

    def architecture(self, params: dict[str, int]) -> Architecture:
        """The architecture of proposed sizes, with what follows from them."""
        sizes: dict[str, Any] = {axis: self.choices[axis][0] for axis in SEARCHED} | params
        if not self._grouped:
            sizes["kv_heads"] = sizes["heads"]
        return Architecture(**sizes)

    def without(self, twins: Callable[[Architecture], bool]) -> "Space":
        """The space without the architectures that `twins` is true of."""
        kept = [n for n, shape in enumerate(self.feasible) if not twins(shape)]
        return replace(
            self,
            feasible=tuple(self.feasible[n] for n in kept),
            parameters=tuple(self.parameters[n] for n in kept),
        )

    def anchors(self) -> dict[str, Architecture | None]:
        """The shapes that a person would try first, by name; None where the band has none.

        There always is a uniform shrink: where the band has none of full depth, its deepest counts
        as full.
        """
        anchors = {name: self.evenly_cut(axes) for name, axes in CUT_AXES.items()}
        return {**anchors, UNIFORM: self.most_even(self.feasible)}

    def evenly_cut(self, axes: Collection[str]) -> Architecture | None:
        """The architecture whose `axes` are cut by as near one ratio as the choices allow.

        All other axes have their largest choice, as a rule the teacher's size; None where the band
        has no such architecture, or the `axes` no choice. Those of which each of the `axes` is cut
        come before others, and of equally even ones the largest.
        """
        whole = {axis: self.choices[axis][-1] for axis in self._sizes}
        cut = [axis for axis in whole if axis in axes and len(self.choices[axis]) > 1]
        if not cut:
            return None
        left = [
            shape
            for shape in self.feasible
            if all(getattr(shape, axis) == whole[axis] for axis in whole if axis not in cut)
        ]
        cut_on_each = [s for s in left if all(getattr(s, axis) < whole[axis] for axis in cut)]
        return self._most_even(cut_on_each or left, cut)

    def most_even(self, architectures: Sequence[Architecture]) -> Architecture:
        """The deepest of these whose widths are cut by as near one ratio as there is."""
        deepest = max(a.layers for a in architectures)
        deep = [a for a in architectures if a.layers == deepest]
        shape = self._most_even(deep, [axis for axis in self._sizes if axis in WIDTHS])
        assert shape is not None, "one of them is the deepest"
        return shape

    def _most_even(
        self, architectures: Iterable[Architecture], axes: Sequence[str]
    ) -> Architecture | None:
        def key(shape: Architecture) -> tuple[float, int]:
            return unevenness(shape, self.teacher, axes=axes), -self.parameter_count(shape)

        return min(architectures, key=key, default=None)

    @property
    def _sizes(self) -> tuple[str, ...]:
        """The axes that are sizes."""
        return tuple(axis for axis in self.axes if axis != "contiguous")

    def describe(self) -> list[str]:
        """The choices, as they are printed before anything starts."""
        lines = [f"space: {axis:8} {_shown(self.choices[axis])}" for axis in self.axes]
        if "contiguous" in self.axes:
            lines[-1] = f"space: layers kept: {RANKED}, {SPAN}"
        if self.served.engines:
            lines.append(
                f"space: {self.not_served:,} architectures of these choices are left out, since "
                f"{' or '.join(self.served.engines)} does not take them"
            )
        if self.served.places is not None:
            lines.append("space: of every depth, layers that keep the engines' pattern of layers")
        return [*lines, *(f"note: {caution}" for caution in self.served.cautions())]


def every_architecture(
    config: PretrainedConfig, given: SpaceConfig, *, narrowing: Narrowing
) -> ArchitectureGrid:
    """Every legal combination of the choices that the engines take.

    Raises SearchError for choices that cannot be.
    """
    grid = _grid(choices_of(config, given, narrowing=narrowing), architecture_of(config))
    return grid.where(is_legal(config, grid) & Served(config, narrowing.serve_with).holds(grid))


def _nothing_legal(config: PretrainedConfig, largest: Architecture) -> str:
    try:
        check_architecture(config, largest)
    except PruningError as problem:
        return f"no choice of --space can be cut out of the teacher; of the largest: {problem}"
    raise AssertionError("the largest choice is legal")


def _nothing_served(served: Served, largest: Architecture) -> str:
    try:
        served.check(largest)
    except PruningError as problem:
        return f"--serve_with leaves nothing of --space; of its largest: {problem}"
    engines = " and ".join(served.engines)
    return f"no architecture of --space is taken by {engines} together; widen --space"


def _nothing_inside(
    grid: ArchitectureGrid,
    legal: NDArray[np.bool_],
    *,
    spent: dict[str, NDArray[np.float64]],
    budget: Budget,
) -> str:
    index = nearest(spent, legal, budget=budget)
    costs = {name: float(values[index]) for name, values in spent.items()}
    return (
        f"no architecture of the space meets the budget of {budget}; the nearest is {grid[index]} "
        f"with {shown_costs(costs, budget)}; change --budget or widen --space"
    )


def _grid(choices: dict[str, list[int]], teacher: Architecture) -> ArchitectureGrid:
    """Every combination of the choices."""
    grid = ArchitectureGrid.product({axis: choices[axis] for axis in SEARCHED})
    return replace(grid, kv_heads=grid.heads) if teacher.heads == teacher.kv_heads else grid


def _distinct(
    grid: ArchitectureGrid, choices: dict[str, list[int]], *, teacher: Architecture
) -> NDArray[np.bool_]:
    """False for duplicates: at full depth the layer-selection mode changes nothing."""
    cut = grid.layers != teacher.layers
    distinct: NDArray[np.bool_] = cut | (grid.contiguous == choices["contiguous"][0])
    return distinct


def _shown(choices: list[int]) -> str:
    if len(choices) <= 8:
        return ", ".join(map(str, choices))
    return f"{choices[0]}, {choices[1]}, ... {choices[-1]} ({len(choices)} choices)"
