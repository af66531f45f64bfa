"""Budgets that a student must meet, in what its user has: parameters, memory, arithmetic, time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import require
from search.config.budget import BudgetConfig
from search.config.units import COSTS, PARAMETERS, THROUGHPUTS, shown_quantity
from search.space.costs import CostModel

DEFAULT_SHARE = 0.5
"""Of the teacher's parameters, where no limit is given."""


@dataclass(frozen=True)
class Bounds:
    """The limits of one cost, in its own unit."""

    cost: str
    """Name of the cost."""
    most: float
    """Upper bound."""
    least: float | None = None
    """Of a band that the user gave."""

    def shown(self, least: float | None) -> str:
        """The limits in words, with this lower bound."""
        _, noun = COSTS[self.cost]
        if least is None:
            return f"at most {self.shown_most} {noun}"
        return f"{self.shown_end(least, ceil)} to {self.shown_most} {noun}"

    @property
    def shown_most(self) -> str:
        """The upper bound."""
        return self.shown_end(self.most, floor)

    def shown_end(self, end: float, rounded: Callable[[float], int]) -> str:
        """A bound; parameters are counted, so that theirs is `rounded` to the last count inside."""
        unit, _ = COSTS[self.cost]
        return unit.shown(rounded(end) if unit is PARAMETERS else end)


@dataclass(frozen=True)
class Budget:
    """Limits that hold together.

    Every upper bound holds, and the lower ones of the bands that were given. Without a band and
    with a tolerance, at least one limit is used to (1 - tolerance) of it: what uses less of all
    could be larger and, as a rule, better.
    """

    limits: tuple[Bounds, ...]
    """All that hold."""
    tolerance: float | None
    """None where bands or nothing bound a student from below."""
    setting: str
    """Batch, context and type, in words."""

    @classmethod
    def of(cls, config: BudgetConfig, costs: CostModel, *, banded: bool = True) -> "Budget":
        """Limits in absolute figures. `banded` False leaves the tolerance out: where costs are
        objectives too, the small students count.

        Raises SearchError for limits above the teacher's own cost and bands without inside.
        """
        given = config if config.given else BudgetConfig(DEFAULT_SHARE)
        teacher = costs.of_teacher(given.given)
        limits = tuple(
            _bounds(given, option, costs=costs, teachers=teacher)
            for option in (*COSTS, *THROUGHPUTS)
            if getattr(given, option) is not None
        )
        bands = any(bounds.least is not None for bounds in limits)
        tolerance = config.tolerance if banded and not bands else None
        return cls(limits, tolerance, str(costs))

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that are limited."""
        return tuple(bounds.cost for bounds in self.limits)

    def most(self, cost: str) -> float | None:
        """The upper bound of a cost; None where it has none."""
        return next((bounds.most for bounds in self.limits if bounds.cost == cost), None)

    def holds(self, costs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Whether architectures of these `costs` meet the budget, elementwise."""
        inside: Any = True
        near: Any = self.tolerance is None
        for bounds in self.limits:
            cost = costs[bounds.cost]
            inside = inside & (cost <= bounds.most)
            if bounds.least is not None:
                inside = inside & (cost >= bounds.least)
            if self.tolerance is not None:
                near = near | (cost >= self._floor(bounds))
        return np.asarray(inside & near)

    def violations(self, costs: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Largest relative violation of a limit, elementwise; 0 and less where the budget holds."""
        violations, unused = [], []
        with np.errstate(over="ignore"):  # however far from a limit that is next to nothing
            for bounds in self.limits:
                cost = np.asarray(costs[bounds.cost], dtype=np.float64)
                violations.append(cost / bounds.most - 1)
                if bounds.least is not None:
                    violations.append(1 - cost / bounds.least)
                unused.append(1 - cost / max(self._floor(bounds), np.finfo(np.float64).tiny))
        if self.tolerance is not None:
            violations.append(reduce(np.minimum, unused))
        return reduce(np.maximum, violations)

    def _floor(self, bounds: Bounds) -> float:
        return bounds.most * (1 - (self.tolerance or 0.0))

    def __str__(self) -> str:
        alone = len(self.limits) == 1 and self.tolerance is not None
        parts = [
            bounds.shown(self._floor(bounds) if alone else bounds.least) for bounds in self.limits
        ]
        if any(COSTS[cost][0] is not PARAMETERS for cost in self.costs):
            parts[-1] += f" ({self.setting})"
        if self.tolerance is not None and not alone:
            parts.append(f"one of them used to {100 * (1 - self.tolerance):.4g}% or more")
        return ", ".join(parts)


def nearest(costs: Mapping[str, NDArray[Any]], legal: NDArray[np.bool_], *, budget: Budget) -> int:
    """Place of the legal architecture that violates the budget least."""
    candidates = np.flatnonzero(legal)
    return int(candidates[budget.violations(costs)[candidates].argmin()])


def shown_costs(costs: Mapping[str, float], budget: Budget) -> str:
    """The limited costs of one architecture in words, and which of them break their limit."""
    parts = []
    for bounds in budget.limits:
        unit, noun = COSTS[bounds.cost]
        cost, said = costs[bounds.cost], ""
        if cost > bounds.most:
            said = f" (above {bounds.shown_most})"
        elif bounds.least is not None and cost < bounds.least:
            said = f" (below {bounds.shown_end(bounds.least, ceil)})"
        parts.append(f"{unit.shown(cost)} {noun}{said}")
    text = ", ".join(parts)
    fits = not any(costs[bounds.cost] > bounds.most for bounds in budget.limits)
    arrays = {name: np.asarray(cost) for name, cost in costs.items()}
    if budget.tolerance is not None and fits and not budget.holds(arrays):
        share = 100 * (1 - budget.tolerance)
        text += f" (below {share:.4g}% of {'every limit' if parts[1:] else 'the limit'})"
    return text


def _bounds(
    given: BudgetConfig, option: str, *, costs: CostModel, teachers: Mapping[str, float]
) -> Bounds:
    """Raises SearchError for a limit above the teacher's own cost and for a band without inside."""
    ends, cost = given.ends(option), THROUGHPUTS.get(option, option)
    assert ends is not None
    teacher = float(teachers[cost])
    least, most = (None if end is None else end.of(teacher) for end in ends)
    assert most is not None
    written = getattr(given, option)
    shown = f"{written:g}" if isinstance(written, float | int) else written
    require(
        least is None or least <= most,
        f"--budget.{option} is {shown}; the first end of a band must not be above the second",
    )
    remedy = f"above the teacher's own {shown_quantity(cost, teacher)}; a student must cost less"
    if option in THROUGHPUTS:  # the slowest takes the most time; a single number is the slowest
        tokens = costs.batch * (costs.context if cost == "prefill_ms" else 1)
        slowest, fastest = (most, None) if least is None else (least, most)
        most = 1000 * tokens / slowest
        least = None if fastest is None else 1000 * tokens / fastest
        remedy = f"which the teacher reaches with its {shown_quantity(cost, teacher)}; give more"
    require(most <= teacher, f"--budget.{option} is {shown}, {remedy}")
    return Bounds(cost, most, least)
