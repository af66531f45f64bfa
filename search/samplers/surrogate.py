"""A Gaussian process over the feasible architectures themselves, and its expected improvement.

The set is finite, so nothing has to be moved back into the budget: the criterion is computed for
every architecture that may be tried (expected improvement as in EGO, Jones et al. 1998; several
objectives by random augmented Chebyshev weights as in ParEGO, Knowles 2006).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pruning import Architecture
from search.samplers.gaussian_process import Floats, GaussianProcess
from search.space.space import Space
from search.study.observation import RUNNING, Scored

CANDIDATES = 20_000
"""Architectures of which the criterion is computed; of more, so many drawn at random."""


def best_expected(
    space: Space,
    indices: NDArray[np.int64],
    *,
    scored: Sequence[Scored],
    zero_shot: Mapping[Architecture, float],
    generator: np.random.Generator,
) -> Architecture:
    """The architecture among `indices` of the space with the largest expected improvement.

    Candidates that still run count with what is expected of them ("kriging believer", Ginsbourger
    et al. 2010), so that the next one is another.
    """
    known = [s for s in scored if s.values is not None]
    pending = [s for s in scored if s.values is None and s.observation.state == RUNNING]
    if len(indices) > CANDIDATES:
        indices = generator.choice(indices, CANDIDATES, replace=False)
    started = [s.observation.architecture for s in (*known, *pending)]
    table = _features(space, started, indices=indices, zero_shot=zero_shot)
    seen, waiting, choosable = np.split(table, [len(known), len(started)])
    target = _scalar(np.array([s.values for s in known], dtype=float), generator)
    scale = target.std() or 1.0
    noise = np.array([s.spread for s in known]) ** 2 / scale**2
    process = GaussianProcess.fit(seen, (target - target.mean()) / scale, extra_noise=noise)
    if len(waiting):
        process = process.and_expected(waiting)
    best = process.predict(process.inputs)[0].min()
    mean, deviation = process.predict(choosable)
    z = (best - mean) / deviation
    expected = deviation * (z * norm.cdf(z) + norm.pdf(z))
    criterion = expected if expected.max() > 0 else z  # so far off that all underflow
    return space.feasible[int(indices[criterion.argmax()])]


def _scalar(values: Floats, generator: np.random.Generator) -> Floats:
    """One number per candidate, minimised: logarithms where positive, weighed if several.

    values: [candidates, objectives].
    """
    columns = np.where((values > 0).all(0), np.log(np.maximum(values, 1e-300)), values)
    if columns.shape[1] == 1:
        return columns[:, 0]
    spans = np.ptp(columns, axis=0)
    unit = (columns - columns.min(0)) / np.where(spans > 0, spans, 1.0)
    weighed = unit * generator.dirichlet(np.ones(columns.shape[1]))
    scalar: Floats = weighed.max(1) + 0.05 * weighed.sum(1)
    return scalar


def _features(
    space: Space,
    started: Sequence[Architecture],
    *,
    indices: NDArray[np.int64],
    zero_shot: Mapping[Architecture, float],
) -> Floats:
    """What the process knows of those started, then of those at `indices`: places on the axes, log
    parameters, log zero-shot KL."""
    every = [*started, *(space.feasible[n] for n in indices)]
    own = np.array([space.position(shape) for shape in started])
    rows = np.vstack([own, space.positions[indices]])
    sizes = np.log([space.parameters_of[shape] for shape in every])
    columns = [rows - rows.mean(0), _standard(sizes)[:, None]]
    if zero_shot:
        columns.append(
            _standard(_zero_shot(space, rows, every=every, zero_shot=zero_shot))[:, None]
        )
    return np.hstack(columns)


def _standard(column: Floats) -> Floats:
    """Centred, and scaled as an axis of [0, 1] is."""
    spread = column.std()
    return (column - column.mean()) / (3 * spread) if spread else column * 0


def _zero_shot(
    space: Space,
    rows: Floats,
    *,
    every: Sequence[Architecture],
    zero_shot: Mapping[Architecture, float],
) -> Floats:
    """The log KL before training: measured, or what a process over the measured ones expects."""
    found = np.array([zero_shot.get(shape, np.nan) for shape in every])
    missing = ~np.isfinite(found)
    logs = np.log(np.where(missing, 1.0, found))
    if missing.any():
        places = np.array([space.position(shape) for shape in zero_shot])
        target = np.log(list(zero_shot.values()))
        mean, scale = target.mean(), target.std() or 1.0
        centre = rows.mean(0)
        process = GaussianProcess.fit(
            places - centre, (target - mean) / scale, extra_noise=np.zeros(len(target))
        )
        logs[missing] = process.predict(rows[missing] - centre)[0] * scale + mean
    return logs
