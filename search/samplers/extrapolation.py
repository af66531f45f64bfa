"""Extrapolation of learning curves: the score at the end of a run that was stopped early.

Where a run stands among others hardly changes after the first tokens, and its KL falls by a similar
factor: so the end is log-linear in the KL at equal tokens (as in learning-curve extrapolation,
arXiv 1412.5543, with one measurement in place of a curve).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FITTED = 4
"""Pairs from which a slope is fitted; fewer give one ratio."""
SPREAD = 0.1
"""Assumed standard deviation of the log of a predicted score, where pairs are too few to tell."""


@dataclass(frozen=True)
class PartialCurve:
    """The measurements of a run."""

    curve: dict[int, float]
    """KL by tokens."""
    score: float | None
    """The score at its end, where it came to that."""


@dataclass(frozen=True)
class Prediction:
    """A score, known or predicted."""

    value: float
    """The score itself."""
    spread: float
    """Standard deviation of the prediction, of the score's log where all are positive; 0 of a known
    one."""


def predicted_scores(runs: Sequence[PartialCurve]) -> list[Prediction | None]:
    """The score of each run at its end, predicted for those that ended before; None where no run
    tells how to.

    From the last rung to the first: what a run that passed a rung would score, known or predicted
    from a later rung, tells of those that stopped at it.
    """
    known: list[Prediction | None] = [
        None if run.score is None else Prediction(run.score, 0.0) for run in runs
    ]
    finite = np.array([run.score for run in runs if run.score is not None])
    logarithmic = bool(len(finite)) and bool((finite > 0).all())
    waiting = [n for n, run in enumerate(runs) if run.score is None and run.curve]
    last = {n: max(runs[n].curve) for n in waiting}
    for tokens in sorted(set(last.values()), reverse=True):
        passed = [n for n, run in enumerate(runs) if known[n] is not None and tokens in run.curve]
        here = [n for n in waiting if last[n] == tokens]
        predictions = _predict(
            np.array([runs[n].curve[tokens] for n in passed]),
            np.array([known[n].value for n in passed]),  # type: ignore[union-attr]
            own=np.array([runs[n].curve[tokens] for n in here]),
            logarithmic=logarithmic,
        )
        for n, prediction in zip(here, predictions, strict=True):
            known[n] = prediction
    return known


def _predict(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    *,
    own: NDArray[np.float64],
    logarithmic: bool,
) -> list[Prediction | None]:
    """Scores of runs with the KL `own`, from runs that had the KL `before` and scored `after`."""
    if not len(before):
        return [None] * len(own)
    x, at = np.log(before), np.log(own)
    y = np.log(after) if logarithmic else after
    slope, spread = 1.0 if logarithmic else 0.0, SPREAD
    if len(x) >= FITTED and np.ptp(x) > 0:
        slope = float(np.polyfit(x, y, 1)[0])
        slope = max(0.0, slope) if logarithmic else slope
        residual = y - y.mean() - slope * (x - x.mean())
        spread = float(np.sqrt((residual**2).sum() / (len(x) - 2)))
    found = y.mean() + slope * (at - x.mean())
    values = np.exp(found) if logarithmic else found
    return [Prediction(float(value), spread) for value in values]
