"""Trials on Ray Tune: the bridge between Ray and the study.

The study is the only record. Ray starts fresh every time; the searcher asks the study for work, the
stopper tells it what came of it, and nothing of either is saved by Ray.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from pruning import Architecture
from search.candidate import Assets, Job, TaskQuestions
from search.cluster import LOST_NODE_SECONDS
from search.errors import SearchStopped
from search.files import Files
from search.finals import FullPlan, FullRun
from search.ray_errors import note, noted, of_memory
from search.record import Record
from search.room import Room, too_large
from search.selection import CANDIDATE
from search.trial_facts import architecture_of, origin_of
from search.worker import CandidateTrial

ASK_AGAIN_SECONDS = 1.0
"""After the study had no trial to start. Ray asks at every event, and only another driver of the
study, or the end of a trial of this one, can change the answer."""


@dataclass(frozen=True)
class TrialPlan:
    """How the trials of a study are run."""

    study: str
    target: int
    """Trials to finish."""
    assets: Assets
    tokens: int
    reports: tuple[int, ...]
    """Optimiser steps after which a trial is measured."""
    checkpoints: Path
    checkpoint_seconds: float
    max_failures: int
    room: Room
    cpus: int
    gpus: float
    ray_directory: Path
    tasks: TaskQuestions | None = None
    files: Files | None = None
    """How workers on other nodes reach the workspace."""
    errors: Path | None = None
    """Where Ray's own words about failures are kept."""
    out_of_time: Callable[[], bool] = lambda: False
    """Whether no trial shall go on, since the time that is left is needed for the full runs."""
    full: FullPlan | None = None
    """How full runs are run, where a trial that comes to its end is one; it keeps its student."""


class StudySearcher(Searcher):
    """Asks the study for the next trial, and tells it how each one ended."""

    def __init__(self, record: Record, plan: TrialPlan, say: Callable[[str], None]):
        super().__init__()  # no metric: a failed result has none
        self.record = record
        self.plan = plan
        self.say = say
        self.numbers: dict[str, int] = {}
        self.stopped: set[int] = set()
        """Trials that were compared and shall not go on."""
        self.interrupted: set[int] = set()
        """Trials that shall not go on for want of time."""
        self.problem: SearchStopped | None = None
        """Why nothing can be recorded any more."""
        self.words: dict[str, str] = {}
        """What Ray said of trials that died."""
        self.too_large: str | None = None
        """Why the search stops, where a trial did not fit the memory though it ran alone."""
        self._late = False
        self._asked_in_vain = -math.inf
        self._not_before = -math.inf
        """When a trial may be started again after a node may have been lost."""

    def suggest(self, trial_id: str) -> Any:
        config = None
        with self.recording():
            config = self._suggested(trial_id)
        return Searcher.FINISHED if self.problem else config

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, what ends the search is kept: Ray would take it for a failure of the trial."""
        try:
            yield
        except SearchStopped as problem:
            self.problem = self.problem or problem

    def _suggested(self, trial_id: str) -> Any:
        record, plan = self.record, self.plan
        over = self.too_large is not None or record.failures_in_a_row >= plan.max_failures
        if over or self.out_of_time():
            return self._nothing_now()
        if len(self.numbers) >= plan.room.limit:
            return None
        if time.monotonic() - self._asked_in_vain < ASK_AGAIN_SECONDS:
            return self._nothing_now()
        if time.monotonic() < self._not_before:
            return None
        trial = record.next_trial(plan.target)
        if trial is None:
            self._asked_in_vain = time.monotonic()
            return self._nothing_now()
        self.numbers[trial_id] = trial.number
        job = Job(
            name=f"trial-{trial.number:04d}",
            architecture=architecture_of(trial),
            tokens=plan.tokens,
            checkpoint=self._checkpoint(trial),
            checkpoint_seconds=plan.checkpoint_seconds,
            reports=plan.reports,
            tasks=plan.tasks,
        )
        return {
            "job": job,
            "assets": plan.assets,
            "study": plan.study,
            "cpus": plan.cpus,
            "gpus": plan.gpus,
            "memory": plan.room.slots.memory,
            "files": plan.files,
            **self._kept(architecture_of(trial)),
        }

    def _kept(self, shape: Architecture) -> dict[str, str | None]:
        """Where a trial that comes to its end writes its student, and as what."""
        full = self.plan.full
        if full is None:
            return {"output": None, "dtype": None}
        name = FullRun(CANDIDATE, shape).directory_name(full.tokens)
        return {"output": str(full.directory / name), "dtype": full.dtype}

    def _nothing_now(self) -> str | None:
        """What Ray takes for "ask again", or for the end where nothing is running."""
        return None if self.record.live.keys() - self.interrupted else Searcher.FINISHED

    def out_of_time(self) -> bool:
        """Whether time is up; once it is, it stays so."""
        self._late = self._late or self.plan.out_of_time()
        return self._late

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if self.problem is None:
            with self.recording():
                self._complete(trial_id, result, error)

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        self._asked_in_vain = -math.inf
        number = self.numbers.pop(trial_id)
        trial = self.record.live[number]
        result = result or {}
        name = f"trial-{number:04d}"
        if not error and number in self.interrupted:
            return  # still live in the record, which puts it back at the end
        failed = "failed" in result
        if failed:
            reason = result["failed"] + note(self.plan.errors, name, result.get("details", ""))
        elif error or "curve" not in result:
            words = self.words.pop(trial_id, "")
            reason = self.plan.room.explained(noted(self.plan.errors, name, words))
        else:
            reason = ""
        if of_memory(reason):
            again, outcome = True, self._put_back(number, reason)
        elif failed:
            self.record.fail(number, reason)
            again, outcome = False, f"failed: {reason}"
        elif reason:
            again = self.record.lost(number, reason)
            outcome = f"{reason}; {'taking it up again' if again else 'given up'}"
            if again and self.plan.files is not None:
                self._not_before = time.monotonic() + LOST_NODE_SECONDS
        else:
            again, outcome = False, self._scored(number, result)
        if not again:
            shutil.rmtree(self._checkpoint(trial), ignore_errors=True)
        self.say(f"{name} {architecture_of(trial)}: {outcome}")

    def _put_back(self, number: int, reason: str) -> str:
        """A trial wanted for memory: fewer run from now on, or else the search stops."""
        trial = self.record.live[number]
        self.record.lost(number, reason, counted=False)
        said = self.plan.room.lowered(reason, len(self.numbers))
        if said is None:
            name = f"trial-{number:04d} {architecture_of(trial)}"
            self.too_large = too_large(name, reason, self.plan.assets.training)
        return said or f"{reason}; put back"

    def _scored(self, number: int, result: dict[str, Any]) -> str:
        kl = result["curve"][-1]["kl"]
        if number in self.stopped:
            self.record.stop_early(number)
            return f"kl {kl:.4f}, stopped early at {result['tokens']:,} tokens"
        sequences = result.get("kl_sequences", [])
        scores = dict(result.get("scores", []))
        self.record.complete(number, kl, sequences=sequences, scores=scores)
        return f"kl {kl:.4f} after {result['tokens']:,} tokens"

    def _checkpoint(self, trial: FrozenTrial) -> Path:
        return self.plan.checkpoints / f"trial-{origin_of(trial):04d}"

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
        stops = False
        with self.searcher.recording():
            stops = self._stops(trial_id, result)
        return stops or self.stop_all()

    def _stops(self, trial_id: str, result: dict[str, Any]) -> bool:
        searcher = self.searcher
        number = searcher.numbers.get(trial_id)
        if number is None or "curve" not in result or searcher.problem:
            return False
        if result["done"]:
            searcher.record.report(number, result)
            return False
        if searcher.record.report(number, result):
            searcher.stopped.add(number)
            return True
        if searcher.out_of_time():
            searcher.interrupted.add(number)
            return True
        return False

    def stop_all(self) -> bool:
        return self.searcher.problem is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyScheduler(FIFOScheduler):
    """Decides nothing; keeps what Ray says of a trial that died, which a searcher is not told."""

    def __init__(self, searcher: StudySearcher):
        super().__init__()
        self.searcher = searcher

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if trial.error_file:
            self.searcher.words[trial.trial_id] = Path(trial.error_file).read_text("utf-8")

    def __getstate__(self) -> dict[str, Any]:
        return {}


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
    )


def run_trials(record: Record, plan: TrialPlan, say: Callable[[str], None]) -> None:
    """Run trials until the study has as many as it shall, or the space is exhausted.

    Trials that time runs out for are left live in the record. Raises SearchStopped after several
    failures in a row, where a trial does not fit the memory even alone, and where nothing can be
    recorded any more.
    """
    searcher = StudySearcher(record, plan, say)
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
