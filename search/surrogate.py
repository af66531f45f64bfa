"""A Gaussian process over the feasible architectures themselves, and its expected improvement.

The set is finite, so nothing has to be moved back into the budget: the criterion is computed for
every architecture that may be tried (expected improvement as in EGO, Jones et al. 1998; several
objectives by random augmented Chebyshev weights as in ParEGO, Knowles 2006).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

from pruning import Architecture
from search.space import Space

if TYPE_CHECKING:
    from search.proposals import Scored

CANDIDATES = 20_000
"""Architectures of which the criterion is computed; of more, so many drawn at random."""
ITERATIONS = 25
"""Of the fit of the process's parameters; more hardly move its predictions."""

Floats = NDArray[np.float64]


def best_expected(
    space: Space,
    indices: NDArray[np.int64],
    scored: Sequence["Scored"],
    zero_shot: Mapping[Architecture, float],
    generator: np.random.Generator,
) -> Architecture:
    """The architecture among `indices` of the space with the largest expected improvement.

    Candidates that still run count with what is expected of them ("kriging believer", Ginsbourger
    et al. 2010), so that the next one is another.
    """
    known = [s for s in scored if s.values is not None]
    pending = [s for s in scored if s.values is None and s.observation.state == "running"]
    if len(indices) > CANDIDATES:
        indices = generator.choice(indices, CANDIDATES, replace=False)
    shapes = [space.feasible[n] for n in indices]
    described = _features(
        space,
        [s.observation.architecture for s in known],
        [s.observation.architecture for s in pending],
        shapes,
        zero_shot,
    )
    target = _scalar(np.array([s.values for s in known], dtype=float), generator)
    scale = target.std() or 1.0
    target = (target - target.mean()) / scale
    noise = np.array([s.spread for s in known]) ** 2 / scale**2
    seen, waiting, open_ = described
    model = _fitted(seen, target, noise, generator)
    if len(waiting):
        target = np.concatenate([target, model.predict(waiting)])
        seen, noise = np.vstack([seen, waiting]), np.concatenate([noise, np.zeros(len(waiting))])
        model = _model(model.kernel_, noise, None).fit(seen, target)
    best = model.predict(seen).min()
    mean, deviation = model.predict(open_, return_std=True)
    deviation = np.sqrt(np.maximum(0.0, deviation**2 - model.kernel_.k2.noise_level))
    return shapes[int(_expected_improvement(best, mean, deviation).argmax())]


def _expected_improvement(best: float, mean: Floats, deviation: Floats) -> Floats:
    deviation = np.maximum(deviation, 1e-9)
    z = (best - mean) / deviation
    improvement: Floats = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return improvement


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
    known: Sequence[Architecture],
    pending: Sequence[Architecture],
    shapes: Sequence[Architecture],
    zero_shot: Mapping[Architecture, float],
) -> tuple[Floats, Floats, Floats]:
    """What the process knows of each: places on the axes, log parameters, log zero-shot KL."""
    every = [*known, *pending, *shapes]
    rows = np.array([space.position(shape) for shape in every])
    sizes = np.log([space.parameters_of[shape] for shape in every])
    columns = [rows, _standard(sizes)[:, None]]
    if zero_shot:
        columns.append(_standard(_zero_shot(space, rows, every, zero_shot))[:, None])
    table = np.hstack(columns)
    table = table[:, np.ptp(table, axis=0) > 0]
    first, second = len(known), len(known) + len(pending)
    return table[:first], table[first:second], table[second:]


def _standard(column: Floats) -> Floats:
    spread = column.std()
    return (column - column.mean()) / (3 * spread) if spread else column * 0


def _zero_shot(
    space: Space,
    rows: Floats,
    every: Sequence[Architecture],
    zero_shot: Mapping[Architecture, float],
) -> Floats:
    """The log KL before training: measured, or what a process over the measured ones expects."""
    found = np.array([zero_shot.get(shape, np.nan) for shape in every])
    missing = ~np.isfinite(found)
    logs = np.log(np.where(missing, 1.0, found))
    if missing.any():
        measured = list(zero_shot)
        places = np.array([space.position(shape) for shape in measured])
        target = np.log([zero_shot[shape] for shape in measured])
        model = _model(_kernel(rows.shape[1]), np.zeros(len(target)), _optimum)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(places, target - target.mean())
        logs[missing] = model.predict(rows[missing]) + target.mean()
    return logs


def _fitted(
    seen: Floats, target: Floats, noise: Floats, generator: np.random.Generator
) -> GaussianProcessRegressor:
    model = _model(_kernel(seen.shape[1]), noise, _optimum)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(seen, target)


def _kernel(axes: int) -> Kernel:
    """A trend along each axis and smooth departures from it, with noise."""
    trend = ConstantKernel(0.5, (1e-3, 1e2)) * DotProduct(1.0, (1e-2, 1e2))
    smooth = ConstantKernel(0.5, (1e-3, 1e2)) * Matern(np.ones(axes), (0.1, 30.0), nu=2.5)
    return trend + smooth + WhiteKernel(1e-2, (1e-5, 0.3))


def _optimum(objective: Any, start: Floats, bounds: Floats) -> tuple[Floats, float]:
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": ITERATIONS},
    )
    return found.x, found.fun


def _model(kernel: Kernel, noise: Floats, optimizer: Any) -> GaussianProcessRegressor:
    return GaussianProcessRegressor(kernel, alpha=noise + 1e-8, optimizer=optimizer)
