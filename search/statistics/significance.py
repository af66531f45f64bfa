"""Significance of differences between candidates, paired over sequences and with seed noise.

A bootstrap over the sequences that all candidates share measures how sensitive the ranking is to
the evaluation sequences. It does not see that another training seed would have moved each mean, by
about half a percent; that is added as noise of its own.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import require

CONFIDENCE = 0.95
RESAMPLES = 4000
TAIL_RESAMPLES = 20
"""Resamples wanted beyond the end of the narrowest interval."""
BATCH = 1000
SEED_SD = 0.005
"""Standard deviation of the mean KL between training seeds, as a share of it."""

PerSequence = NDArray[np.float64]


def indistinguishable(
    scores: Mapping[str, PerSequence], count: int, *, seed_sd: float = SEED_SD
) -> list[str]:
    """Candidates beyond the `count` best that cannot be told from the last of them, best first.

    `scores` has each candidate's KL per sequence, [sequences], the same sequences for all. Every
    candidate beyond the `count` best is compared, paired, with the `count`-th best; it is returned
    where the bootstrap interval of the difference of the means includes 0. The intervals hold
    together with 95 %, after Holm: candidates that are clearly worse do not widen the intervals of
    those near the line, as Bonferroni's correction would have it.

    The `count`-th best stands where it does partly by luck, which the interval does not undo: of
    eight equal candidates the best is told from another in some 18 % of draws, the third of twenty
    in 4 %. So this list is rather too short than too long where `count` is 1.
    """
    names, values = _ranked(scores, count, seed_sd=seed_sd)
    beyond = names[count:]
    if not beyond:
        return []
    differences = values[count:] - values[count - 1]
    means = values.mean(1)
    noise = seed_sd * np.hypot(means[count:], means[count - 1])
    below, above = np.zeros(len(beyond)), np.zeros(len(beyond))
    tail = (1 - CONFIDENCE) / 2 / len(beyond)
    resamples = max(RESAMPLES, int(np.ceil(TAIL_RESAMPLES / tail)))
    for drawn, generator in _resampled_means(differences, resamples):
        drawn += noise * generator.normal(size=drawn.shape)
        below += (drawn <= 0).sum(0)
        above += (drawn >= 0).sum(0)
    chances = np.minimum(1.0, 2 * np.minimum(below, above) / resamples)
    told_apart = holm(chances, 1 - CONFIDENCE)
    return [name for name, apart in zip(beyond, told_apart, strict=True) if not apart]


def probability_best(
    scores: Mapping[str, PerSequence], seed_sd: float = SEED_SD
) -> dict[str, float]:
    """Share of the paired resamples in which a candidate has the lowest mean, best mean first.

    Candidates that are equal in a resample share it. `scores` as in `indistinguishable`.
    """
    names, values = _ranked(scores, 1, seed_sd=seed_sd)
    noise = seed_sd * values.mean(1)
    wins = np.zeros(len(names))
    for drawn, generator in _resampled_means(values, RESAMPLES):
        drawn += noise * generator.normal(size=drawn.shape)
        lowest = drawn == drawn.min(1, keepdims=True)
        wins += (lowest / lowest.sum(1, keepdims=True)).sum(0)
    return {name: float(won) / RESAMPLES for name, won in zip(names, wins, strict=True)}


def holm(chances: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Null hypotheses to reject so that all rejections are right with 1 - `level`.

    `chances` are their p-values, [hypotheses]. Holm's step-down procedure.
    """
    order = np.argsort(chances, kind="stable")
    passed = chances[order] <= level / np.arange(len(chances), 0, -1)
    rejected = np.zeros(len(chances), dtype=bool)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected


def _ranked(
    scores: Mapping[str, PerSequence], count: int, *, seed_sd: float
) -> tuple[list[str], NDArray[np.float64]]:
    """(names, values [candidates, sequences]), lowest mean first; of equal means, by name."""
    require(len(scores) > 0, "there is no candidate to compare; give at least one")
    require(count > 0, f"the {count} best are asked for; ask for at least 1")
    require(seed_sd >= 0, f"the seeds' standard deviation is {seed_sd}; it cannot be below 0")
    lengths = sorted({np.shape(row) for row in scores.values()})
    require(
        len(lengths) == 1 and len(lengths[0]) == 1 and lengths[0][0] > 0,
        f"the candidates' KLs have the shapes {lengths}; give the same sequences for all",
    )
    for name, row in scores.items():
        require(
            bool(np.isfinite(row).all()),
            f"{name} has a KL that is not finite; leave it out of the comparison",
        )
    names = sorted(scores, key=lambda name: (float(np.mean(scores[name])), name))
    return names, np.stack([np.asarray(scores[name], dtype=np.float64) for name in names])


def _resampled_means(
    values: NDArray[np.float64], resamples: int
) -> Iterator[tuple[NDArray[np.float64], np.random.Generator]]:
    """Batches of means [batch, candidates] of `values` [candidates, sequences], paired.

    Each comes with the generator that drew it, for other randomness in it.
    """
    generator = np.random.default_rng(0)
    sequences = values.shape[1]
    even = np.full(sequences, 1 / sequences)
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        shares = generator.multinomial(sequences, even, size=size) / sequences
        yield shares @ values.T, generator
