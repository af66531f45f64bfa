"""Trials of a study on Ray Tune."""

import time

from ray import tune

from common.errors import SearchStopped
from search.study.record import Record
from search.trials.plan import TrialPlan
from search.trials.searcher import StudyScheduler, StudySearcher, StudyStopper
from search.workers.actors import TASK, CandidateTrial


def make_tuner(
    searcher: StudySearcher, trainable: type[tune.Trainable] = CandidateTrial
) -> tune.Tuner:
    """Ray Tune, such that the study decides what is tried and how far each trial goes."""
    plan = searcher.plan
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=-1,
            max_concurrent_trials=plan.room.limit,
            trial_name_creator=lambda trial: trial.config[TASK].name,
            trial_dirname_creator=lambda trial: f"{trial.config[TASK].name}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{int(time.time())}",
            storage_path=str(plan.ray_directory.absolute()),
            stop=StudyStopper(searcher),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


def run_trials(record: Record, plan: TrialPlan) -> None:
    """Run trials until the study has as many as it shall, or the space is exhausted.

    Trials that time runs out for are left live in the record. Raises SearchStopped after several
    failures in a row, where a trial does not fit the memory even alone, and where nothing can be
    recorded any more.
    """
    searcher = StudySearcher(record, plan)
    make_tuner(searcher).fit()
    if searcher.problem is not None:
        raise searcher.problem
    if searcher.too_large is not None:
        raise SearchStopped(searcher.too_large)
    if record.failures_in_a_row >= plan.max_failures:
        raise SearchStopped(
            f"{record.failures_in_a_row} trials failed in a row; the last reasons are in the study "
            "(attribute error) and in trials.csv; mend the cause and start the same command again"
        )
