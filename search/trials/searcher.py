"""Ray Tune's searcher, stopper and scheduler of a study.

The study is the only record. Ray starts fresh every time; the searcher asks the study for work, the
stopper tells it what came of it, and nothing of either is saved by Ray.
"""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from common.errors import SearchStopped
from common.progress import Progress
from distill.recipes import RunReport
from search.cluster.ray_errors import LOST_NODE_SECONDS, WorkerFailure, noted, of_memory
from search.cluster.room import too_large
from search.database.trial_facts import architecture_of
from search.study.record import Record
from search.trials.plan import TrialPlan, trial_name
from search.workers.actors import TASK

LOGGER = logging.getLogger(__name__)
ASK_AGAIN_SECONDS = 1.0
"""After the study had no trial to start. Ray asks at every event, and only another driver of the
study, or the end of a trial of this one, can change the answer."""


class StudySearcher(Searcher):
    """Asks the study for the next trial, and tells it how each one ended."""

    def __init__(self, record: Record, plan: TrialPlan):
        super().__init__()  # no metric: a failed result has none
        self.record = record
        self.plan = plan
        self.progress = Progress(plan.target, done=record.finished())
        self.numbers: dict[str, int] = {}
        """Numbers of the trials that run, by Ray's names."""
        self.stopped: set[int] = set()
        """Trials that were compared and shall not go on."""
        self.interrupted: set[int] = set()
        """Trials that shall not go on for want of time."""
        self.problem: SearchStopped | None = None
        """Why nothing can be recorded any more."""
        self.words: dict[str, str] = {}
        """Ray's own words on trials that died, by its names."""
        self.too_large: str | None = None
        """Why the search stops, where a trial did not fit the memory though it ran alone."""
        self._late = False
        self._asked_in_vain = -math.inf
        self._not_before = -math.inf
        """When a trial may be started again after a node may have been lost."""

    def suggest(self, trial_id: str) -> Any:
        """The settings of the next trial, None for "ask again", or that there is none."""
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
        return {TASK: plan.task(trial)}

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
        """Record how a trial ended: `result` is its last, `error` says that its worker died."""
        if self.problem is None:
            with self.recording():
                self._complete(trial_id, {} if error or result is None else result, died=error)

    def _complete(self, trial_id: str, result: dict[str, Any], *, died: bool) -> None:
        self._asked_in_vain = -math.inf
        number = self.numbers.pop(trial_id)
        if number in self.interrupted and not died:
            return  # still live in the record, which puts it back at the end
        trial = self.record.live[number]
        failure, words = WorkerFailure.from_dict(result), self.words.pop(trial_id, "")
        if failure is not None:
            again, outcome = self._failed(trial, failure)
        elif "curve" in result:
            again, outcome = False, self._scored(number, RunReport.from_dict(result))
        else:
            again, outcome = self._lost(trial, words)
        if not again:
            shutil.rmtree(self.plan.checkpoint(trial), ignore_errors=True)
        finished = self.record.finished()
        LOGGER.info(
            f"[{finished} of {self.plan.target}] {trial_name(number)} {architecture_of(trial)}: "
            f"{outcome}; about {self.progress.left(finished):.0f} s left"
        )

    def _failed(self, trial: FrozenTrial, failure: WorkerFailure) -> tuple[bool, str]:
        """Of a trial whose worker raised something: whether it goes on, and the outcome."""
        reason = failure.noted(self.plan.errors, trial_name(trial.number))
        if of_memory(reason):
            return True, self._put_back(trial, reason)
        self.record.fail(trial.number, reason)
        return False, f"failed: {reason}"

    def _lost(self, trial: FrozenTrial, words: str) -> tuple[bool, str]:
        """The same of a trial whose worker died, with Ray's own words on that."""
        log, number = self.plan.errors, trial.number
        reason = self.plan.room.explained(noted(log, trial_name(number), problem=words))
        if of_memory(reason):
            return True, self._put_back(trial, reason)
        again = self.record.lost(number, reason)
        if again and self.plan.access is not None:
            self._not_before = time.monotonic() + LOST_NODE_SECONDS
        return again, f"{reason}; {'taking it up again' if again else 'given up'}"

    def _put_back(self, trial: FrozenTrial, reason: str) -> str:
        """A trial wanted for memory: fewer run from now on, or else the search stops."""
        self.record.lost(trial.number, reason, counted=False)
        said = self.plan.room.lowered(reason, len(self.numbers))
        if said is None:
            name = f"{trial_name(trial.number)} {architecture_of(trial)}"
            self.too_large = too_large(name, reason, training=self.plan.assets.training)
        return said or f"{reason}; put back"

    def _scored(self, number: int, report: RunReport) -> str:
        kl = report.curve[-1].kl
        if number in self.stopped:
            self.record.stop_early(number)
            return f"kl {kl:.4f}, stopped early at {report.tokens:,} tokens"
        self.record.complete(number, kl, sequences=report.kl_sequences, scores=dict(report.scores))
        return f"kl {kl:.4f} after {report.tokens:,} tokens"

    def save(self, checkpoint_path: str) -> None:
        """The study is the state; Ray insists on a file."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Refused: the study is the state."""
        raise RuntimeError("a search is resumed from its study, never from a Ray experiment")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles searchers; the study's URL must not travel


class StudyStopper(tune.Stopper):
    """Reports each result to the study, which decides whether the trial goes on."""

    def __init__(self, searcher: StudySearcher):
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial shall stop after this result."""
        stops = False
        with self.searcher.recording():
            stops = self._stops(trial_id, result)
        return stops or self.stop_all()

    def _stops(self, trial_id: str, result: dict[str, Any]) -> bool:
        searcher = self.searcher
        number = searcher.numbers.get(trial_id)
        if number is None or "curve" not in result or searcher.problem:
            return False
        report = RunReport.from_dict(result)
        stops = searcher.record.report(number, report)
        if report.done:
            return False
        if stops:
            searcher.stopped.add(number)
            return True
        if searcher.out_of_time():
            searcher.interrupted.add(number)
            return True
        return False

    def stop_all(self) -> bool:
        """Whether nothing can be recorded any more."""
        return self.searcher.problem is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyScheduler(FIFOScheduler):
    """Decides nothing; keeps what Ray says of a trial that died, which a searcher is not told."""

    def __init__(self, searcher: StudySearcher):
        super().__init__()  # type: ignore[no-untyped-call]
        self.searcher = searcher

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep Ray's own words."""
        if trial.error_file:
            self.searcher.words[trial.trial_id] = Path(trial.error_file).read_text("utf-8")

    def __getstate__(self) -> dict[str, Any]:
        return {}
