"""Trials on Ray Tune: the bridge between Ray and the study.

The study is the only record. Ray starts fresh every time; the searcher asks the study for work, the
stopper tells it what came of it, and nothing of either is saved by Ray.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial
from ray import tune
from ray.tune.search import Searcher

from pruning import Architecture
from search.candidate import Assets, Job
from search.errors import SearchStopped
from search.record import Record
from search.worker import CandidateTrial


@dataclass(frozen=True)
class TrialPlan:
    """How the trials of a study are run."""

    study: str
    target: int
    """Trials to finish."""
    assets: Assets
    tokens: int
    reports: int
    checkpoints: Path
    checkpoint_seconds: float
    max_failures: int
    concurrent: int
    cpus: int
    gpus: float
    ray_directory: Path


class StudySearcher(Searcher):
    """Asks the study for the next trial, and tells it how each one ended."""

    def __init__(self, record: Record, plan: TrialPlan, say: Callable[[str], None]):
        super().__init__()  # no metric: a failed result has none
        self.record = record
        self.plan = plan
        self.say = say
        self.numbers: dict[str, int] = {}
        self.stopped: set[int] = set()
        self.failures: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        record, plan = self.record, self.plan
        enough = record.finished() + len(record.live) >= plan.target
        if enough or record.failures_in_a_row >= plan.max_failures:
            return None if record.live else Searcher.FINISHED
        trial = record.next_trial()
        if trial is None:
            return None if record.live else Searcher.FINISHED
        self.numbers[trial_id] = trial.number
        job = Job(
            name=f"trial-{trial.number:04d}",
            architecture=Architecture.from_dict(trial.user_attrs["architecture"]),
            tokens=plan.tokens,
            checkpoint=self._checkpoint(trial),
            checkpoint_seconds=plan.checkpoint_seconds,
            reports=plan.reports,
        )
        return {
            "job": job,
            "assets": plan.assets,
            "study": plan.study,
            "cpus": plan.cpus,
            "gpus": plan.gpus,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self.numbers.pop(trial_id)
        trial = self.record.live[number]
        shape = trial.user_attrs["architecture"]
        failed = (result or {}).get("failed")
        if error or failed or not result:
            reason = failed or "the worker died (killed, or out of memory)"
            self.record.fail(number, reason)
            outcome = f"failed: {reason}"
        else:
            kl = result["curve"][-1]["kl"]
            if number in self.stopped:
                self.record.stop_early(number)
                outcome = f"kl {kl:.4f}, stopped early at {result['tokens']:,} tokens"
            else:
                self.record.complete(number, kl)
                outcome = f"kl {kl:.4f} after {result['tokens']:,} tokens"
        shutil.rmtree(self._checkpoint(trial), ignore_errors=True)
        self.say(f"trial-{number:04d} {Architecture.from_dict(shape)}: {outcome}")

    def _checkpoint(self, trial: Trial) -> Path:
        return self.plan.checkpoints / f"trial-{trial.user_attrs['origin']:04d}"

    def save(self, checkpoint_path: str) -> None:
        """The study is the state; Ray insists on a file."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its study, never from a Ray experiment")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles searchers; the study's URL must not travel


class StudyStopper(tune.Stopper):
    """Reports each result to the study, which decides whether the trial goes on."""

    def __init__(self, searcher: StudySearcher):
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        number = self.searcher.numbers.get(trial_id)
        if number is None or "curve" not in result:
            return False
        stop = self.searcher.record.report(number, result) and not result["done"]
        if stop:
            self.searcher.stopped.add(number)
        return stop

    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_trials(record: Record, plan: TrialPlan, say: Callable[[str], None]) -> None:
    """Run trials until the study has as many as it shall, or the space is exhausted.

    Raises SearchStopped after several failures in a row.
    """
    searcher = StudySearcher(record, plan, say)
    tune.Tuner(
        CandidateTrial,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=plan.concurrent,
            trial_name_creator=lambda trial: trial.config["job"].name,
            trial_dirname_creator=lambda trial: f"{trial.config['job'].name}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{int(time.time())}",
            storage_path=str(plan.ray_directory.absolute()),
            stop=StudyStopper(searcher),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    if record.failures_in_a_row >= plan.max_failures:
        raise SearchStopped(
            f"{record.failures_in_a_row} trials failed in a row; the last reasons are in the study "
            "(attribute error) and in trials.csv; mend the cause and start the same command again"
        )
