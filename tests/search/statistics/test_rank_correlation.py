"""Rank correlations on candidates whose order is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from common.errors import SearchError
from search.statistics.rank_correlation import (
    FULL,
    HEADER,
    MINIMUM,
    PARAMETERS,
    SHORT,
    ZERO_SHOT,
    CandidateScores,
    RankCorrelation,
    correlations,
    rank_correlations,
    rows,
    rung_name,
    warnings,
)

FIRST, SECOND, END = 1000, 4000, 16000


def candidates(count: int, seed: int = 0) -> list[CandidateScores]:
    """The rung at FIRST is noise, the one at SECOND orders as the short score does."""
    generator = np.random.default_rng(seed)
    short = generator.permutation(count) + 1.0
    return [
        CandidateScores(
            parameters=int(generator.integers(1000, 2000)),
            curve=((FIRST, float(generator.normal())), (SECOND, kl**2), (END, kl)),
            zero_shot=10.0 - kl,
            short=kl,
        )
        for kl in short
    ]


def found(pairs: list[RankCorrelation], predictor: str, outcome: str) -> RankCorrelation:
    (pair,) = (p for p in pairs if (p.predictor, p.outcome) == (predictor, outcome))
    return pair


def test_a_perfect_predictor_is_one_and_a_reversed_one_minus_one() -> None:
    pairs = rank_correlations(candidates(20))
    perfect = found(pairs, rung_name(SECOND), SHORT)
    for correlation in (perfect.spearman, perfect.kendall):
        bounds = (correlation.low, correlation.value, correlation.high)
        assert bounds == pytest.approx((1.0, 1.0, 1.0))
    reversed_ = found(pairs, ZERO_SHOT, SHORT)
    assert reversed_.spearman.value == pytest.approx(-1.0)
    assert reversed_.kendall.high == pytest.approx(-1.0)


def test_noise_has_an_interval_with_zero_and_is_warned_of() -> None:
    pairs = rank_correlations(candidates(20))
    noise = found(pairs, rung_name(FIRST), SHORT)
    assert noise.spearman.low < 0 < noise.spearman.high
    lines = warnings(pairs)
    assert any(line.startswith("rung of 1,000 tokens is not shown to predict") for line in lines)
    assert f"(Spearman {noise.spearman}, n 20)" in " ".join(lines)
    assert any(line.startswith("zero-shot is not shown to predict the short") for line in lines)
    assert not any(line.startswith("rung of 4,000") for line in lines)
    assert not any(line.startswith(PARAMETERS) for line in lines)


def test_more_parameters_count_as_better_and_are_the_control() -> None:
    some = [replace(c, parameters=int(1000 - 10 * (c.short or 0))) for c in candidates(20)]
    pairs = rank_correlations(some)
    assert found(pairs, PARAMETERS, SHORT).spearman.value == pytest.approx(1.0)
    rung = found(pairs, rung_name(SECOND), SHORT)
    assert rung.control == pytest.approx(1.0)
    (line,) = (line for line in warnings(pairs) if line.startswith("rung of 4,000"))
    assert "no better than the parameter count" in line


def test_equal_sizes_are_no_control() -> None:
    pairs = rank_correlations([replace(c, parameters=7) for c in candidates(20)])
    assert found(pairs, rung_name(SECOND), SHORT).control is None
    assert not any(p.predictor == PARAMETERS for p in pairs)


def test_every_earlier_figure_is_held_against_every_later_one() -> None:
    some = [replace(c, full=2 * (c.short or 0)) for c in candidates(MINIMUM)]
    pairs = rank_correlations(some)
    rungs = [rung_name(FIRST), rung_name(SECOND)]
    order = [PARAMETERS, ZERO_SHOT, *rungs, SHORT, FULL]
    expected = {(p, o) for i, o in enumerate(order) for p in order[:i] if o not in order[:2]}
    assert {(pair.predictor, pair.outcome) for pair in pairs} == expected
    only = rank_correlations(some, rungs=[SECOND])
    assert {p.predictor for p in only} == {PARAMETERS, ZERO_SHOT, rungs[1], SHORT}


def test_those_stopped_early_are_counted_as_missing() -> None:
    some = candidates(14)
    stopped = [replace(c, short=None, curve=c.curve[:1]) for c in some[:4]]
    pairs = rank_correlations([*stopped, *some[4:]])
    assert (found(pairs, rung_name(FIRST), SHORT).candidates, pairs[0].outcome) == (
        10,
        rung_name(FIRST),
    )
    assert found(pairs, rung_name(FIRST), SHORT).missing == 4
    assert found(pairs, rung_name(SECOND), SHORT).missing == 0
    assert found(pairs, ZERO_SHOT, rung_name(FIRST)).candidates == 14


def test_too_few_say_nothing() -> None:
    assert rank_correlations(candidates(MINIMUM - 1)) == []
    some = candidates(20)
    few = [replace(c, full=c.short) for c in some[: MINIMUM - 1]] + some[MINIMUM - 1 :]
    assert not any(pair.outcome == FULL for pair in rank_correlations(few))
    assert rank_correlations([]) == []


def test_a_diverged_score_counts_as_none() -> None:
    some = candidates(12)
    some[0] = replace(some[0], short=float("nan"))
    assert found(rank_correlations(some), ZERO_SHOT, SHORT).candidates == 11


def test_the_estimates_are_those_of_scipy_and_the_resamples_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ties included: the vectorised tau-b is held against scipy's on the same resamples."""
    monkeypatch.setattr("search.statistics.rank_correlation.RESAMPLES", 200)
    generator = np.random.default_rng(3)
    first = generator.integers(6, size=12).astype(float)
    second = first + generator.integers(6, size=12).astype(float)
    spearman, kendall = correlations(first, second)
    assert spearman.value == stats.spearmanr(first, second).statistic
    assert kendall.value == stats.kendalltau(first, second).statistic
    drawn = np.random.default_rng(0).integers(12, size=(200, 12))
    taus = [stats.kendalltau(first[d], second[d]).statistic for d in drawn]
    rhos = [stats.spearmanr(first[d], second[d]).statistic for d in drawn]
    assert [kendall.low, kendall.high] == pytest.approx(np.nanquantile(taus, [0.025, 0.975]))
    assert [spearman.low, spearman.high] == pytest.approx(np.nanquantile(rhos, [0.025, 0.975]))


def test_the_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's of two normals correlated by 0.6
    covered = 0
    for _ in range(60):
        first = generator.normal(size=16)
        second = 0.6 * first + 0.8 * generator.normal(size=16)
        spearman, _ = correlations(first, second)
        covered += spearman.low <= truth <= spearman.high
    assert 0.9 <= covered / 60 <= 1.0


def test_rows() -> None:
    pairs = rank_correlations(candidates(12))
    assert all(len(row) == len(HEADER) for row in rows(pairs))
    assert pairs == rank_correlations(candidates(12))


def test_a_curve_out_of_order_is_named() -> None:
    some = [replace(c, curve=c.curve[::-1]) for c in candidates(10)]
    with pytest.raises(SearchError, match="order of its tokens"):
        rank_correlations(some)
