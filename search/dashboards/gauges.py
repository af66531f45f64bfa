"""Gauges of a study for Prometheus, beside those of each run that its slot keeps."""

from collections import Counter
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial, TrialState
from ray.util.metrics import Gauge

from common.values import in_ascii
from search.database.trial_facts import last_by_origin, progress_of
from search.study.watching import TrialWatcher

STATES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
}
"""State of a trial -> the tag of its gauge; trials that went on under another number are left
out."""


class StudyGauges(TrialWatcher):
    """Keeps the number of trials by state, and the best KL, in Ray's metrics."""

    def __init__(self, study: str, target: int, trials: Callable[[], Sequence[FrozenTrial]]):
        """`trials` gives all of the student, of which `target` shall finish."""
        self.trials, self.tags = trials, {"study": in_ascii(study)}
        self._count = Gauge(
            "espalier_trials", description="trials by state", tag_keys=("study", "state")
        )
        self._best = Gauge(
            "espalier_best_kl",
            description="best selection KL of a trial at its end, nats per token",
            tag_keys=("study",),
        )
        wanted = Gauge(
            "espalier_trials_wanted", description="trials to finish", tag_keys=("study",)
        )
        wanted.set(target, self.tags)
        self._update()

    def began(self, trial: FrozenTrial) -> None:
        """One more runs."""
        self._update()

    def interrupted(self, trial: FrozenTrial) -> None:
        """One more waits."""
        self._update()

    def ended(self, trial: FrozenTrial) -> None:
        """One more is through."""
        self._update()

    def _update(self) -> None:
        last = last_by_origin(self.trials()).values()
        counts = Counter(trial.state for trial in last)
        for state, name in STATES.items():
            self._count.set(counts[state], {**self.tags, "state": name})
        done = [progress_of(trial) for trial in last if trial.state == TrialState.COMPLETE]
        kls = [progress.last.kl for progress in done if progress is not None]
        if kls:
            self._best.set(min(kls), self.tags)
