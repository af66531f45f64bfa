"""Confidence intervals, paired over sequences, including the variance between training seeds.

Seeds alone move the KL by about half a percent, which the spread over sequences does not show; both
parts are added. Where only one seed ran, the interval says that seed noise is not in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
BOOTSTRAP_BATCH = 50


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    """Over sequences and seeds."""
    low: float
    """Its lower end."""
    high: float
    """Its upper end."""
    seeds: int
    """Training seeds behind it; with one, seed noise is not included."""

    def to_dict(self) -> dict[str, float | int | bool]:
        """The fields, and whether seed noise is included."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "seeds": self.seeds,
            "seed_noise_included": self.seeds > 1,
        }

    def __str__(self) -> str:
        note = "" if self.seeds > 1 else " (seed noise not included)"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]{note}"


def mean_interval(runs: list[NDArray[np.float64]]) -> Interval:
    """Mean of one model's metric; `runs` has per seed the values [sequences]."""
    values = np.stack(runs)
    return _interval(values.mean(0), [values.mean(1)])


def difference_interval(
    first: list[NDArray[np.float64]], second: list[NDArray[np.float64]]
) -> Interval:
    """Mean of `first` minus `second`, paired on the sequences; seeds are not paired."""
    one, two = np.stack(first), np.stack(second)
    return _interval(one.mean(0) - two.mean(0), [one.mean(1), two.mean(1)])


def _interval(per_sequence: NDArray[np.float64], seed_means: list[NDArray[np.float64]]) -> Interval:
    """Student's t over the summed variances of sequences and seeds (Welch-Satterthwaite)."""
    parts = [(_bootstrap_variance(per_sequence), len(per_sequence))]
    parts += [(float(m.var(ddof=1)) / len(m), len(m)) for m in seed_means if len(m) > 1]
    variance = sum(part for part, _ in parts)
    freedom = sum(part**2 / max(count - 1, 1) for part, count in parts)
    degrees = variance**2 / freedom if freedom > 0 else 1.0
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, degrees)) * variance**0.5
    mean = float(per_sequence.mean())
    return Interval(mean, mean - half, mean + half, min(len(means) for means in seed_means))


def _bootstrap_variance(values: NDArray[np.float64]) -> float:
    """Variance of the mean when the sequences are drawn anew.

    In the limit `values.var() / n`; drawn, so that intervals stay those that were published.
    """
    generator = np.random.default_rng(0)
    size = (BOOTSTRAP_BATCH, len(values))
    batches = [
        values[generator.integers(len(values), size=size)].mean(1)
        for _ in range(RESAMPLES // BOOTSTRAP_BATCH)
    ]
    return float(np.concatenate(batches).var(ddof=1))
