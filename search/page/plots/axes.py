"""Plots of what decides: importance of the axes, and which early score predicts a later one."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from search.page.plots.drawing import ACCENT, GREY, INK, Plot, new_figure
from search.page.study_facts import StudyFacts
from search.statistics.rank_correlation import (
    CandidateScores,
    RankCorrelation,
    rank_correlations,
)

FEWEST = 8
"""Trials below which nothing is said of axes."""
BEST_SHARE = 0.25
"""Of the trials, those whose axes are held against the axes of all."""
MANY = 64
"""Trials from which what is said of axes is more than a hint."""
AXES = {
    "kv_heads": "KV heads",
    "ffn": "FFN",
    "expert_ffn": "FFN of an expert",
    "contiguous": "which layers are left out",
}
"""Name of an axis -> what it is called where that is another."""


def axis_importance(facts: StudyFacts) -> tuple[int, dict[str, float]]:
    """Share of each axis in what tells the best quarter of the trials from all, by PED-ANOVA
    (arXiv 2304.10255), and the tokens after which they are compared: the most that the most trials
    were evaluated at. (0, {}) of fewer than FEWEST trials."""
    counts = Counter(point.tokens for trial in facts.scored for point in trial.curve)
    if not counts:
        return 0, {}
    most = max(counts.values())
    tokens = max(tokens for tokens, seen in counts.items() if seen == most)
    compared = optuna.create_study()
    for trial in facts.scored:
        kl = next((point.kl for point in trial.curve if point.tokens == tokens), None)
        if kl is not None and np.isfinite(kl) and trial.trial.params:
            params, distributions = trial.trial.params, trial.trial.distributions
            compared.add_trial(create_trial(params=params, distributions=distributions, value=kl))
    if len(compared.get_trials(deepcopy=False)) < FEWEST:
        return 0, {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    return tokens, dict(get_param_importances(compared, evaluator=evaluator))


def importance_plot(facts: StudyFacts) -> Plot | None:
    """How much each axis decides."""
    tokens, shares = axis_importance(facts)
    if not shares:
        return None
    ordered = sorted(shares.items(), key=lambda pair: pair[1])
    names = [AXES.get(name, name) for name, _ in ordered]
    values = [share for _, share in ordered]
    figure, axes = new_figure(0.9 + 0.36 * len(names))
    bars = axes.barh(names, values, color=ACCENT, height=0.6)
    axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=4, color=INK)
    axes.set_xlabel("share of the importance")
    axes.set_xlim(0, max(values) * 1.12)
    axes.grid(visible=False, axis="y")
    said = ", ".join(f"{n} {v:.0%}" for n, v in zip(names[::-1], values[::-1], strict=True))
    hint = "" if len(facts.scored) >= MANY else " Of so few trials it is a hint."
    return Plot(
        "axes",
        "Importance of the axes",
        f"What tells the best quarter of the trials from all of them, by their KL after {tokens:,} "
        f"tokens (PED-ANOVA): {said}.{hint}",
        figure,
        pd.DataFrame({"axis": [name for name, _ in ordered], "share": values}),
    )


def correlations_of(facts: StudyFacts) -> list[RankCorrelation]:
    """Of the trials alone, where there are no full runs to hold them against."""
    scores = [
        CandidateScores(
            parameters=trial.parameters or 0,
            curve=[(point.tokens, point.kl) for point in trial.curve],
            zero_shot=trial.zero_shot,
            short=trial.last.kl if trial.complete and trial.last else None,
        )
        for trial in facts.scored
    ]
    return rank_correlations(scores)


def correlation_plot(pairs: Sequence[RankCorrelation]) -> Plot | None:
    """Spearman's correlation of every early score with a later one, with its interval."""
    if not pairs:
        return None
    figure, axes = new_figure(0.9 + 0.34 * len(pairs))
    names = [f"{pair.predictor} → {pair.outcome}" for pair in pairs]
    places = np.arange(len(pairs))[::-1]
    axes.axvline(0, color=INK, linewidth=1)
    for place, pair in zip(places, pairs, strict=True):
        one = pair.spearman
        axes.plot([one.low, one.high], [place, place], "-", color=ACCENT)
        axes.plot(one.value, place, "o", color=ACCENT, markersize=7)
        if pair.control is not None and pair.predictor != "parameter count":
            axes.plot(pair.control, place, "d", color=GREY, fillstyle="none", markersize=7)
        axes.annotate(
            f"{one.value:.2f}",
            (1.03, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            annotation_clip=False,
        )
    axes.set_yticks(places, names)
    axes.set_xlim(-1.05, 1.05)
    axes.set_xlabel("Spearman's rank correlation")
    best = max(pairs, key=lambda pair: pair.spearman.value)
    return Plot(
        "correlations",
        "What an early score says of a later one",
        "Rank correlation of scores that are known early with scores that are known later (circles "
        "with 95 % intervals; hollow diamonds: the parameter count over the same candidates). 1 is "
        f"the same order, 0 none. The closest is {best.predictor} with {best.outcome}: "
        f"{best.spearman}, {best.candidates} candidates.",
        figure,
        pd.DataFrame(
            [
                {
                    "predictor": pair.predictor,
                    "outcome": pair.outcome,
                    "spearman": pair.spearman.value,
                    "low": pair.spearman.low,
                    "high": pair.spearman.high,
                    "parameter count": pair.control,
                    "candidates": pair.candidates,
                }
                for pair in pairs
            ]
        ),
    )
