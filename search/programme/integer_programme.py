"""The choice of blocks as a mixed-integer linear programme, solved by HiGHS.

Every row is counted from the cheapest variant of each layer and scaled by its own largest entry:
bytes of 1e10 stand beside milliseconds, and the solver's tolerance is absolute.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from search.programme.programme import Apart, Choice, Programme, Values, as_choice
from search.programme.quiet import no_stray_lines

LARGEST = 100.0
"""Entry of a scaled row. The solver takes a row as met within 1e-6, which so is 1e-8 of the largest
difference between blocks."""
LARGEST_SCORE = 1_000.0
"""Of the scaled objective: the solver's absolute gap is 1e-6."""
MARGIN = 1e-4
"""By which a scaled row is tightened so that what the solver takes as met is met: integers may be
off by 1e-6 of an entry of 100."""


class Ended(Enum):
    """How the solver ended."""

    OPTIMAL = 0
    TIME_LIMIT = 1
    INFEASIBLE = 2
    FAILED = 4


@dataclass(frozen=True)
class Answer:
    """What the solver found."""

    ended: Ended
    """How it ended."""
    choice: Choice | None
    """The best one found."""
    bound: float | None
    """Lower bound of the objective."""


@dataclass
class _Rows:
    """Rows of the programme over the columns [offered variants, one per limit, slack]."""

    programme: Programme
    tight: Collection[str]
    entries: list[sparse.csr_array] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = np.flatnonzero(self.programme.offered)
        self.limits = tuple(self.programme.budget.limits)
        self.layer, self.variant = np.unravel_index(self.columns, self.programme.scores.shape)

    @property
    def width(self) -> int:
        """Columns in all."""
        return len(self.columns) + len(self.limits) + 1

    def add(self, blocks: Values, *, low: float, high: float, others: dict[int, float]) -> None:
        """Add low <= blocks · x + others <= high; `others` are columns after the variants."""
        row = np.zeros(self.width)
        row[: len(self.columns)] = blocks
        for place, value in others.items():
            row[place] = value
        self.entries.append(sparse.csr_array(row[None]))
        self.low.append(low)
        self.high.append(high)

    def one_of_each_layer(self) -> None:
        for layer in range(self.programme.layers):
            self.add((self.layer == layer).astype(float), low=1, high=1, others={})

    def required(self) -> None:
        for mask in self.programme.required:
            self.add(mask.ravel()[self.columns].astype(float), low=1, high=np.inf, others={})

    def apart_from(self, earlier: Apart) -> None:
        shared = np.asarray(earlier.choice)[self.layer] == self.variant
        most = self.programme.layers - earlier.distance
        self.add(shared.astype(float), low=-np.inf, high=most, others={})

    def budget(self) -> None:
        """Every limit, and with a tolerance that one of them is used to its floor.

        The last column is the relative violation of all of them; it is 0 where they must hold.
        """
        slack, tolerance = self.width - 1, self.programme.budget.tolerance
        used: list[int] = []
        for place, limit in enumerate(self.limits, len(self.columns)):
            above, base = self._above_cheapest(limit.cost)
            scale = LARGEST / (above.max() or limit.most)
            margin = MARGIN if limit.cost in self.tight else 0.0
            blocks, room = scale * above, scale * (limit.most - base) - margin
            self.add(blocks, low=-np.inf, high=room, others={slack: -scale * limit.most})
            if limit.least is not None:
                need = scale * (limit.least - base) + margin
                self.add(blocks, low=need, high=np.inf, others={slack: scale * limit.least})
            if tolerance is not None:
                floor = limit.most * (1 - tolerance)
                need = max(0.0, scale * (floor - base) + margin)
                others = {slack: scale * floor, place: -need}
                self.add(blocks, low=0, high=np.inf, others=others)
                used.append(place)
        if used:
            self.add(
                np.zeros(len(self.columns)), low=1, high=np.inf, others=dict.fromkeys(used, 1.0)
            )

    def _above_cheapest(self, cost: str) -> tuple[Values, float]:
        """A cost of each column above the cheapest of its layer, and the sum of the cheapest."""
        every = np.where(self.programme.offered, self.programme.costs[cost], np.inf)
        cheapest = every.min(1)
        above: Values = every.ravel()[self.columns] - cheapest[self.layer]
        return above, self.programme.fixed.get(cost, 0.0) + float(cheapest.sum())


def minimise(
    programme: Programme,
    *,
    apart: Sequence[Apart] = (),
    gap: float,
    seconds: float,
    tight: Collection[str] = (),
) -> Answer:
    """The combination of the least summed score that meets the budget.

    The solver meets limits within its tolerance: `Programme.holds` says whether a choice does.

    Args:
        programme: Variants and budget.
        apart: Choices that it must differ from.
        gap: Relative gap at which the solver stops, of what the score is above the best everywhere.
        seconds: Time limit.
        tight: Costs whose limits are tightened by so little that whatever the solver takes as met
            is met.

    Returns:
        The answer; its bound is one of the summed score.
    """
    rows = _Rows(programme, tight)
    best = programme.scores.min(1)
    rise = programme.scores.ravel()[rows.columns] - best[rows.layer]
    scale = LARGEST_SCORE / (rise.max() or 1.0)
    objective = np.concatenate([scale * rise, np.zeros(len(rows.limits) + 1)])
    answer = _solve(rows, objective, apart=apart, most_slack=0.0, options=(gap, seconds))
    bound = None if answer.bound is None else answer.bound / float(scale) + float(best.sum())
    return Answer(answer.ended, answer.choice, bound)


def nearest(programme: Programme, *, gap: float, seconds: float) -> Answer:
    """The combination whose largest relative violation of a limit is the least."""
    rows = _Rows(programme, ())
    objective = np.zeros(rows.width)
    objective[-1] = LARGEST_SCORE
    return _solve(rows, objective, apart=(), most_slack=np.inf, options=(gap, seconds))


def _solve(
    rows: _Rows,
    objective: Values,
    *,
    apart: Sequence[Apart],
    most_slack: float,
    options: tuple[float, float],
) -> Answer:
    """`options` are the relative gap and the seconds.

    A signal is handled when the solver returns, within the seconds at the latest.
    """
    rows.one_of_each_layer()
    rows.required()
    rows.budget()
    for earlier in apart:
        rows.apart_from(earlier)
    highest, whole = np.ones(rows.width), np.ones(rows.width)
    highest[-1], whole[-1] = most_slack, 0
    gap, seconds = options
    with no_stray_lines():
        result = milp(
            objective,
            integrality=whole,
            bounds=Bounds(np.zeros(rows.width), highest),
            constraints=LinearConstraint(sparse.vstack(rows.entries), rows.low, rows.high),
            options={"mip_rel_gap": gap, "time_limit": max(seconds, 0.0)},
        )
    ended = Ended(result.status) if result.status in {e.value for e in Ended} else Ended.FAILED
    bound = result.get("mip_dual_bound")
    known = bound is not None and np.isfinite(bound)
    return Answer(ended, _choice(rows, result.x), float(bound) if known else None)


def _choice(rows: _Rows, values: Values | None) -> Choice | None:
    if values is None:
        return None
    taken = np.zeros(rows.programme.scores.shape)
    taken[rows.layer, rows.variant] = values[: len(rows.columns)]
    return as_choice(taken.argmax(1))
