"""The scored trials of a study: how well cheap scores predict, and the trade-offs among them."""

import numpy as np
from optuna.trial import TrialState

from search.config.names import CANDIDATE
from search.database.attributes import ZERO_SHOT
from search.database.trial_facts import (
    FINISHED_STATES,
    architecture_of,
    latest_by_origin,
    progress_of,
)
from search.report.finished_search import FinishedSearch
from search.results.results import Front, FrontPoint
from search.statistics.pareto import front, hypervolume_curve, knee, reference_point
from search.statistics.rank_correlation import CandidateScores
from search.study.record import Record
from search.workers.full_runs import FullRun, load_result


def candidate_scores(search: FinishedSearch) -> list[CandidateScores]:
    """All scores of every scored candidate, for the rank correlations."""
    scores = []
    for trial in latest_by_origin(search.record.trials(*FINISHED_STATES)).values():
        shape, done = architecture_of(trial), progress_of(trial)
        if done is None:
            continue
        full = load_result(search.selection.run(CANDIDATE, shape), search.plan)
        full = full or load_result(FullRun(CANDIDATE, shape), search.plan)
        complete = trial.state == TrialState.COMPLETE
        scores.append(
            CandidateScores(
                parameters=search.record.space.parameter_count(shape),
                curve=[(point.tokens, point.kl) for point in done.curve],
                zero_shot=trial.user_attrs.get(ZERO_SHOT),
                short=done.last.kl if complete else None,
                full=None if full is None else full.selection.means()["kl"],
            )
        )
    return scores


def trade_offs(record: Record) -> Front | None:
    """Pareto front, knee and hypervolume over time; None with one objective or without a trial."""
    scored = record.trials(TrialState.COMPLETE)
    if not record.objectives.several or not scored:
        return None
    scored = sorted(scored, key=lambda trial: (trial.datetime_complete, trial.number))
    values = np.array([record.objectives.minimised(trial.values) for trial in scored])
    reference = reference_point(values)

    def point(index: int) -> FrontPoint:
        trial = scored[index]
        named = zip(record.objectives.names, trial.values, strict=True)
        return FrontPoint(trial.number, architecture_of(trial), dict(named))

    return Front(
        objectives=list(record.objectives.names),
        front=sorted(map(point, front(values)), key=lambda p: p.values["kl"]),
        knee=point(knee(values)),
        hypervolume=hypervolume_curve(values, reference).tolist(),
        reference=reference.tolist(),
    )
