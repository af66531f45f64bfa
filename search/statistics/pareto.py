"""Pareto front of several objectives: its hypervolume, its knee, and points along it.

Values are arrays [candidates, objectives], all of them minimised; a caller negates what is to be
maximised. A row with a value that is not finite (a run that diverged) is never on the front.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import require
from search.database import optuna_internals

MARGIN = 0.1
"""Share of an objective's range that the reference point lies beyond its worst value."""
TIE = 1e-9
"""Distances of normalised values closer than this are equal but for rounding."""

Values = NDArray[np.float64]


def front(values: ArrayLike) -> NDArray[np.int64]:
    """Indices, ascending, of the rows that no other row dominates; equal rows are all kept."""
    rows = _matrix(values)
    finite = np.isfinite(rows).all(1)
    kept = [
        index for index in np.flatnonzero(finite) if not _dominates(rows[finite], rows[index]).any()
    ]
    return np.array(kept, dtype=np.int64)


def reference_point(values: ArrayLike) -> Values:
    """The worst finite value of each objective plus 10 % of its range, [objectives].

    The range, since a share of the value itself would depend on where its zero is (and a negated
    score is below it). An objective in which all are equal has none: 10 % of its size, or 0.1
    where it is 0. The hypervolume of two sets, or of one over time, is to be compared under one
    reference.
    """
    rows = _matrix(values)
    rows = rows[np.isfinite(rows).all(1)]
    require(len(rows) > 0, "a reference point needs a candidate whose objectives are all finite")
    worst, spans = rows.max(0), np.ptp(rows, axis=0)
    sizes = np.where(worst == 0, 1.0, abs(worst))
    reference: Values = worst + MARGIN * np.where(spans > 0, spans, sizes)
    return reference


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Volume that the rows dominate below `reference` [objectives], exactly.

    A row that is not below the reference in every objective adds nothing. The unit is the product
    of the objectives' units.
    """
    rows, corner = _matrix(values), np.asarray(reference, dtype=np.float64)
    require(
        rows.shape[1:] == corner.shape,
        f"the reference has {corner.size} objectives and the values {rows.shape[1]}; give one each",
    )
    inside = rows[(rows < corner).all(1) & np.isfinite(rows).all(1)]
    return optuna_internals.hypervolume(inside, corner)


def hypervolume_curve(values: ArrayLike, reference: ArrayLike) -> Values:
    """Hypervolume after each candidate, in the order of the rows, [candidates]; it never falls."""
    rows = _matrix(values)
    kept = np.empty((0, rows.shape[1]))
    volumes = np.zeros(len(rows))
    volume = 0.0
    for index, row in enumerate(rows):
        weakly_dominated = (kept <= row).all(1).any()
        if np.isfinite(row).all() and not weakly_dominated:
            kept = np.vstack([kept[~(row <= kept).all(1)], row])
            volume = max(volume, hypervolume(kept, reference))  # rounding may lose a little
        volumes[index] = volume
    return volumes


def knee(values: ArrayLike) -> int:
    """Index of the front's point that lies farthest below the plane through the front's extremes.

    Each objective is scaled so that the front spans 0 to 1; the plane meets each axis at 1, which
    for two objectives is the line through the front's two ends. Distance is counted towards the
    ideal point only: of a front that bulges away from it the knee is an end. Of points equally far,
    as the two of a front of two, it is the one lowest in the first objective, then in the second,
    and so on. The units of the objectives do not matter.

    Raises SearchError where no row is finite.
    """
    rows = _matrix(values)
    on_front = front(rows)
    require(len(on_front) > 0, "a knee needs a candidate whose objectives are all finite")
    points = rows[on_front]
    spans = np.ptp(points, axis=0)
    scaled = (points - points.min(0)) / np.where(spans > 0, spans, 1.0)
    sums = scaled.sum(1)
    nearest = np.flatnonzero(sums <= sums.min() + TIE)
    lowest = np.lexsort(points[nearest].T[::-1])[0]
    return int(on_front[nearest[lowest]])


def spread(values: ArrayLike, count: int) -> list[int]:
    """Up to `count` indices of the front: the knee, then each time what adds most hypervolume.

    The greedy choice has at least 1 - 1/e of the best possible volume beyond the knee's. Fewer come
    back where the front has fewer points that add anything.
    """
    rows = _matrix(values)
    require(count > 0, f"{count} points of the front were asked for; ask for at least 1")
    chosen = [knee(rows)]
    on_front = front(rows)
    corner = reference_point(rows[on_front])
    volume = hypervolume(rows[chosen], corner)
    while len(chosen) < count:
        rest = [int(index) for index in on_front if index not in chosen]
        volumes = [hypervolume(rows[[*chosen, index]], corner) for index in rest]
        if not rest or max(volumes) <= volume:
            break
        volume = max(volumes)
        chosen.append(rest[volumes.index(volume)])
    return chosen


def _dominates(rows: Values, row: Values) -> NDArray[np.bool_]:
    return np.logical_and((rows <= row).all(1), (rows < row).any(1))


def _matrix(values: ArrayLike) -> Values:
    rows = np.asarray(values, dtype=np.float64)
    require(
        rows.ndim == 2 and rows.shape[1] > 0,
        f"objectives have the shape {list(rows.shape)}; give [candidates, objectives]",
    )
    return rows
