"""Students whose layers differ against those whose layers are alike, and the controls."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from common.intervals import difference_interval
from search.config.units import shown_quantity
from search.database.trial_facts import (
    FINISHED_STATES,
    architecture_of,
    latest_by_origin,
    progress_of,
)
from search.finals.measure import MeasuredStudents
from search.library import Library
from search.per_layer.combinations import Combination, distance_to_nearest
from search.report.finished_search import FinishedSearch
from search.results.per_layer import (
    BlockLoss,
    CombinationResult,
    KindsCompared,
    PerLayerResult,
)
from search.results.results import ServingCosts
from search.results.statements import NOTE, Statement
from search.statistics.rank_correlation import RankCorrelation, correlations

FEWEST = 4
"""Combinations below which a rank correlation is left out."""
SUMMED, BEFORE, AFTER = "summed score", "KL before training", "selection KL after the short run"


def per_layer_result(search: FinishedSearch) -> PerLayerResult | None:
    """Everything that was found out about them; None where the layers of all students are alike."""
    if not search.rounds:
        return None
    trials = latest_by_origin(search.record.trials(*FINISHED_STATES)).values()
    by_shape = {architecture_of(trial): trial for trial in trials}
    combinations = [
        _result(one, found.combinations, number=found.number, trial=by_shape.get(one.architecture))
        for found in search.rounds
        for one in found.combinations
    ]
    return PerLayerResult(
        sub_blocks=search.inputs.config.space.per_layer,
        combinations=combinations,
        ended=[sentence for found in search.rounds for sentence in found.ended],
        correlations=score_correlations(combinations, search.selection.stage.short_tokens),
        blocks=_block_losses(search.library),
        library=None if search.plan.assets.library is None else search.plan.assets.library.name,
        compared=compared_kinds(search.students),
    )


def _block_losses(library: Library | None) -> list[BlockLoss]:
    errors = () if library is None else library.errors
    return [BlockLoss(e.layer, e.part, e.before, e.after, e.tokens, e.used) for e in errors]


def per_layer_verdicts(
    found: PerLayerResult | None, costs: list[ServingCosts], students: MeasuredStudents
) -> list[Statement]:
    """Whether sizes of their own for every layer were worth it, whoever won; nothing where they
    were not asked for."""
    if found is None:
        return []
    if found.compared is None:
        missing = "are alike" if students.best.architecture.per_layer else "differ"
        return [
            Statement(
                NOTE,
                "Not known: whether layers should differ. No trial offered a student whose layers "
                f"{missing} for full distillation.",
            )
        ]
    pair = found.compared
    gap = pair.difference
    said = "cannot be told apart from"
    if gap.high < 0:
        said = "is better than"
    elif gap.low > 0:
        said = "is worse than"
    line = (
        f"The best student whose layers differ {said} the best whose layers are alike: difference "
        f"in test KL {gap}, after {students.winners[pair.per_layer].runs[0].tokens:,} tokens each"
    )
    both = [costs[place] for place in (pair.per_layer, pair.uniform)]
    times = [name for name in both[0].latency if name in both[1].latency]
    one, other = (", ".join(shown_costs(each, times)) for each in both)
    return [Statement(NOTE, f"{line} ({one} against {other}).")]


def shown_costs(costs: ServingCosts, times: list[str]) -> list[str]:
    """Parameters, memory and these times in words; measured where they were."""
    shown = [shown_quantity(name, costs.counted[name]) for name in ("parameters", "memory")]
    for name in times:
        time = costs.latency[name]
        known = time.predicted if time.measured is None else time.measured
        shown.append(shown_quantity(name, known))
    return shown


def _result(
    one: Combination,
    others: tuple[Combination, ...],
    *,
    number: int,
    trial: FrozenTrial | None,
) -> CombinationResult:
    """With what became of its trial."""
    progress = None if trial is None else progress_of(trial)
    return CombinationResult(
        architecture=one.architecture,
        name=one.name,
        control=one.control,
        round=number,
        score=one.score,
        proven=one.proven,
        gap=one.gap,
        distance=distance_to_nearest(one, others),
        zero_shot=one.zero_shot,
        trial=None if trial is None else trial.number,
        tokens=None if progress is None else progress.tokens,
        kl=None if progress is None else progress.last.kl,
    )


def score_correlations(every: list[CombinationResult], short_tokens: int) -> list[RankCorrelation]:
    """How well what is known earlier ranks the combinations by what is known later.

    Sums can be compared within one depth of one round alone: of the one that has the most.
    """
    each = list({one.architecture: one for one in reversed(every)}.values())
    ((most, _),) = Counter(map(_sums, each)).most_common(1)
    summed = f"{SUMMED} at depth {most[1]}"
    columns = {
        summed: _column([one.score if _sums(one) == most else None for one in each]),
        BEFORE: _column([one.zero_shot for one in each]),
        AFTER: _column([one.kl if one.tokens == short_tokens else None for one in each]),
    }
    pairs = ((summed, BEFORE), (summed, AFTER), (BEFORE, AFTER))
    found = []
    for predictor, outcome in pairs:
        has = np.isfinite(columns[predictor])
        both = has & np.isfinite(columns[outcome])
        first, second = columns[predictor][both], columns[outcome][both]
        if both.sum() < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
            continue
        spearman, kendall = correlations(first, second)
        count, missing = int(both.sum()), int(has.sum() - both.sum())
        found.append(
            RankCorrelation(predictor, outcome, spearman, kendall, count, missing, control=None)
        )
    return found


def _sums(one: CombinationResult) -> tuple[int, int]:
    """Round and depth, within which sums of scores can be compared."""
    return one.round, one.architecture.layers


def _column(values: list[float | None]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def compared_kinds(students: MeasuredStudents) -> KindsCompared | None:
    """The best of each kind, by the place that selection gave them, on the test split."""
    places: dict[bool, int] = {}
    for place, winner in enumerate(students.winners):
        if not winner.from_scratch:
            places.setdefault(winner.architecture.per_layer, place)
    if len(places) < 2:
        return None
    one, other = students.winners[places[True]], students.winners[places[False]]
    difference = difference_interval([e.kl for e in one.test], [e.kl for e in other.test])
    return KindsCompared(places[True], places[False], difference)
