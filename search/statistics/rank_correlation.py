"""Rank correlation between cheap proxies and expensive scores.

A search is only as good as its rungs. Zero-shot KL, the KL at a rung and the KL after the short run
are each held, by rank correlation (as in arXiv 2101.08134), against the later score that they stand
for. The parameter count, which costs nothing and alone ranks language models well (arXiv
2203.02094), is the control that a predictor must beat; more parameters count as better.

Candidates stopped early have no short score, and those not chosen have no full score: they are
missing from the outcome. A correlation is over the survivors, whose range is restricted by the very
predictor it judges, so it understates the correlation over all candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.errors import require

MINIMUM = 8
"""Candidates below which a rank correlation says nothing and is left out."""
CONFIDENCE = 0.95
RESAMPLES = 2000
PARAMETERS = "parameter count"
ZERO_SHOT = "zero-shot"
SHORT = "short score"
FULL = "full score"
HEADER = ["predictor", "outcome", "Spearman", "Kendall", "parameter count", "candidates", "missing"]

KlCurve = Sequence[tuple[float, float]]
"""(tokens trained on, selection KL) in the order of the tokens."""


@dataclass(frozen=True)
class CandidateScores:
    """Scores of one candidate; KLs are on the selection split, nats per token."""

    parameters: int
    """Number of them."""
    curve: KlCurve = ()
    """Of its short run, as far as it came."""
    zero_shot: float | None = None
    """KL of the cut before any training."""
    short: float | None = None
    """KL at the end of the short run; None where it was stopped early."""
    full: float | None = None
    """KL after full distillation; None where it was not distilled in full."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its 95 % bootstrap interval over candidates."""

    value: float
    """From -1 to 1."""
    low: float
    """End of the interval."""
    high: float
    """End of the interval."""

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class RankCorrelation:
    """How well a predictor orders the candidates by an outcome; 1 is perfectly, 0 not at all."""

    predictor: str
    """Name of the score that is known earlier."""
    outcome: str
    """Name of the score that it stands for."""
    spearman: Correlation
    """Spearman's rho."""
    kendall: Correlation
    """Kendall's tau-b."""
    candidates: int
    """Those that have both."""
    missing: int
    """Those that have the predictor only: stopped before, or not chosen."""
    control: float | None
    """Spearman of the parameter count over the same candidates; None where they are of one size."""


def rank_correlations(
    candidates: Sequence[CandidateScores], rungs: Sequence[float] | None = None
) -> list[RankCorrelation]:
    """Every predictor against every later outcome, by outcome.

    `rungs` are the token counts of the curves to look at, all before the end of the short run where
    it is not given. A pair that fewer than MINIMUM candidates have both of, or in which all have
    the same value, is left out.
    """
    columns = _columns(candidates, rungs)
    names = list(columns)
    pairs = []
    for place, outcome in enumerate(names):
        if outcome in (PARAMETERS, ZERO_SHOT):
            continue
        for predictor in names[:place]:
            pair = _rank_correlation(predictor, outcome, columns=columns)
            pairs += [pair] if pair else []
    return pairs


def warnings(pairs: Sequence[RankCorrelation]) -> list[str]:
    """A sentence for each predictor that is not shown to earn the decisions taken by it.

    That is one whose interval for Spearman's correlation with the short or the full score includes
    0, or is no better than the parameter count's over the same candidates.
    """
    lines = []
    for pair in pairs:
        if pair.predictor == PARAMETERS or pair.outcome not in (SHORT, FULL):
            continue
        shown = f"Spearman {pair.spearman}, n {pair.candidates}"
        if pair.spearman.low <= 0:
            lines.append(f"{pair.predictor} is not shown to predict the {pair.outcome} ({shown})")
        elif pair.control is not None and pair.spearman.value <= pair.control:
            lines.append(
                f"{pair.predictor} predicts the {pair.outcome} no better than the parameter count "
                f"({shown}; parameter count {pair.control:.2f})"
            )
    return lines


def rows(pairs: Sequence[RankCorrelation]) -> list[list[str]]:
    """Cells of a table under HEADER."""
    return [
        [
            pair.predictor,
            pair.outcome,
            str(pair.spearman),
            str(pair.kendall),
            "" if pair.control is None else f"{pair.control:.2f}",
            str(pair.candidates),
            str(pair.missing),
        ]
        for pair in pairs
    ]


def rung_name(tokens: float) -> str:
    """Name of the KL after so many training tokens."""
    return f"rung of {tokens:,.0f} tokens"


def correlations(
    predictor: NDArray[np.float64], outcome: NDArray[np.float64]
) -> tuple[Correlation, Correlation]:
    """(Spearman's, Kendall's tau-b) of two arrays [candidates], each of at least two values.

    The intervals are of the percentile bootstrap, whose resamples depend on nothing but the number
    of candidates.
    """
    size = len(predictor)
    drawn = np.random.default_rng(0).integers(size, size=(RESAMPLES, size))
    first, second = (stats.rankdata(values[drawn], axis=1) for values in (predictor, outcome))
    spearman = _interval(
        stats.spearmanr(predictor, outcome).statistic, _row_correlations(first, second)
    )
    kendall = _interval(
        stats.kendalltau(predictor, outcome).statistic,
        _kendall_of_resamples(predictor, outcome, drawn=drawn),
    )
    return spearman, kendall


def _columns(
    candidates: Sequence[CandidateScores], rungs: Sequence[float] | None
) -> dict[str, NDArray[np.float64]]:
    """Predictors and outcomes in the order in which they are known, [candidates]; nan: missing.

    All are the lower the better.
    """
    curves = [dict(candidate.curve) for candidate in candidates]
    for candidate in candidates:
        ordered = all(first[0] < second[0] for first, second in pairwise(candidate.curve))
        require(ordered, "a candidate's curve is not in the order of its tokens; sort it")
    if rungs is None:
        ends = [
            max(c) for c, s in zip(curves, candidates, strict=True) if c and s.short is not None
        ]
        rungs = [t for t in {t for c in curves for t in c} if not ends or t < max(ends)]
    columns = {
        PARAMETERS: [-candidate.parameters for candidate in candidates],
        ZERO_SHOT: [candidate.zero_shot for candidate in candidates],
        **{rung_name(t): [curve.get(t) for curve in curves] for t in sorted(rungs)},
        SHORT: [candidate.short for candidate in candidates],
        FULL: [candidate.full for candidate in candidates],
    }
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def _rank_correlation(
    predictor: str, outcome: str, *, columns: dict[str, NDArray[np.float64]]
) -> RankCorrelation | None:
    has = np.isfinite(columns[predictor])
    both = has & np.isfinite(columns[outcome])
    first, second, sizes = (columns[name][both] for name in (predictor, outcome, PARAMETERS))
    if both.sum() < MINIMUM or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    spearman, kendall = correlations(first, second)
    control = float(stats.spearmanr(sizes, second).statistic) if np.ptp(sizes) > 0 else None
    missing = int(has.sum() - both.sum())
    return RankCorrelation(predictor, outcome, spearman, kendall, int(both.sum()), missing, control)


def _interval(value: float, resampled: NDArray[np.float64]) -> Correlation:
    """Resamples in which all are equal have no correlation and do not count."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Correlation(float(value), float(low), float(high))


def _row_correlations(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pearson's correlation of each row, [rows] of [rows, values]; nan where a row is constant."""
    first, second = (values - values.mean(1, keepdims=True) for values in (first, second))
    return _ratio((first * second).sum(1), (first**2).sum(1) * (second**2).sum(1))


def _kendall_of_resamples(
    predictor: NDArray[np.float64], outcome: NDArray[np.float64], *, drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """tau-b of each row of `drawn` [resamples, candidates].

    From the signs of all pairs, weighted by how often the resample has the pair.
    """
    resamples, size = drawn.shape
    flat = (drawn + size * np.arange(resamples)[:, None]).ravel()
    counts = np.bincount(flat, minlength=resamples * size).reshape(resamples, size).astype(float)
    first, second = (np.sign(v[:, None] - v[None, :]) for v in (predictor, outcome))
    same, *untied = (
        np.einsum("ri,ri->r", counts @ signs, counts)
        for signs in (first * second, abs(first), abs(second))
    )
    return _ratio(same, untied[0] * untied[1])


def _ratio(product: NDArray[np.float64], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    varied = squares > 0
    return np.where(varied, product / np.sqrt(np.where(varied, squares, 1.0)), np.nan)
