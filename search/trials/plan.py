"""Plan of a study's trials: how they are run, and the inputs of each worker."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial

from common.progress import left_in_words
from distill.train import RunLimits
from pruning import Architecture
from search.cluster.room import Room
from search.config.names import CANDIDATE
from search.database.trial_facts import architecture_of, origin_of
from search.workers.access import WorkspaceAccess
from search.workers.candidate import Job, SearchAssets, TaskQuestions
from search.workers.full_runs import FullPlan, FullRun
from search.workers.slot import TrialTask


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """How the trials of a study are run."""

    study: str
    """Name of the study."""
    target: int
    """Trials to finish."""
    assets: SearchAssets
    """What they read, and what their students are cut out of."""
    limits: RunLimits
    """Of each trial; its checkpoint has a directory of its own below `checkpoints`."""
    checkpoints: Path
    """Directory of the checkpoints of all trials."""
    max_failures: int
    """Failed trials in a row after which the search stops."""
    room: Room
    """How many run at once, with which resources."""
    tasks: TaskQuestions | None = None
    """Tasks whose scores are objectives."""
    access: WorkspaceAccess | None = None
    """How workers on other nodes reach the workspace."""
    errors: Path | None = None
    """Where Ray's own words about failures are kept."""
    out_of_time: Callable[[], bool] = lambda: False
    """Whether no trial shall go on, since the time that is left is needed for the full runs."""
    words: Callable[[float], str] = left_in_words
    """Ends a line with how long the study still takes, where its trials take so many seconds."""
    full: FullPlan | None = None
    """How full runs are run, where a trial that comes to its end is one; it keeps its student."""

    @property
    def evaluations(self) -> int:
        """How often a trial is evaluated."""
        reports = self.limits.reports
        return reports if isinstance(reports, int) else len(reports)

    def checkpoint(self, trial: FrozenTrial) -> Path:
        """Directory of a trial's checkpoint: that of its origin, which it goes on with."""
        return self.checkpoints / f"trial-{origin_of(trial):04d}"

    def task(self, trial: FrozenTrial) -> TrialTask:
        """Task of a trial, for its slot."""
        shape = architecture_of(trial)
        limits = replace(self.limits, checkpoint=self.checkpoint(trial))
        return TrialTask(
            study=self.study,
            job=Job(trial_name(trial.number), shape, limits, tasks=self.tasks),
            assets=self.assets,
            resources=self.room.resources,
            access=self.access,
            output=self._output(shape),
            dtype="float32" if self.full is None else self.full.dtype,
        )

    def _output(self, shape: Architecture) -> Path | None:
        """Where a trial that comes to its end writes its student."""
        return None if self.full is None else self.full.output(FullRun(CANDIDATE, shape))


def trial_name(number: int) -> str:
    """Readable name of a trial."""
    return f"trial-{number:04d}"
