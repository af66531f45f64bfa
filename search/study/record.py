"""Record of one student's trials: the next one, the reports of each, and the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from distill.recipes import RunReport
from search.config.objectives import Objectives
from search.database.attributes import PROGRESS, SEQUENCES, SHOWN
from search.database.trial_facts import architecture_of, progress_of, ranked
from search.space.space import Space
from search.study.policy import TrialPolicy
from search.study.queue import TrialQueue
from search.study.watching import TrialWatcher


class Record:
    """Queue of trials under a policy: all that Ray's side of a search asks and tells."""

    def __init__(self, queue: TrialQueue, policy: TrialPolicy, watcher: TrialWatcher | None = None):
        """`watcher` is told of every trial once the study has recorded what became of it."""
        self.queue, self.policy = queue, policy
        self.watcher = watcher or TrialWatcher()
        self.failures_in_a_row = 0
        """Trials that failed since one was scored."""
        self.exhausted = False
        """Whether nothing is left to propose."""

    @property
    def study(self) -> optuna.Study:
        """Where the trials are recorded."""
        return self.queue.study

    @property
    def space(self) -> Space:
        """Architectures inside the budget."""
        return self.policy.space

    @property
    def objectives(self) -> Objectives:
        """What the trials minimise."""
        return self.policy.objectives

    @property
    def live(self) -> dict[int, FrozenTrial]:
        """The trials that this driver has running, as they were when they were started."""
        return self.queue.live

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those of the student, of all states or of these. Not to be changed."""
        return self.queue.trials(*states)

    def finished(self) -> int:
        """Architectures scored to the end or stopped early; failed ones do not count."""
        return self.queue.finished()

    def ranked(self) -> list[FrozenTrial]:
        """Scored trials, best selection KL first; those stopped early come after all others."""
        return ranked(self.trials())

    def next_trial(self, target: int | None = None) -> FrozenTrial | None:
        """Start the next waiting trial, or a new anchor or proposal.

        None when the space is exhausted, or when as many as make `target` with the finished ones
        are running already, those of other drivers included.
        """
        queue, coordination = self.queue, self.queue.coordination
        with coordination.exclusive():
            if coordination.shared:
                queue.reclaim()  # of drivers that died since
            if target is not None and not queue.open_places(target):
                return None
            trial = queue.start_waiting() or self._start_new()
        if trial is None:
            return None
        if target is not None and self._is_surplus(trial.number, target):
            queue.fail(trial.number, "withdrawn: another driver was faster")
            return None
        self.watcher.began(trial)
        return trial

    def _is_surplus(self, number: int, target: int) -> bool:
        """Whether a trial was started in vain, since the connection broke that kept others out."""
        coordination = self.queue.coordination
        return coordination.shared and coordination.surplus(number, target)

    def _start_new(self) -> FrozenTrial | None:
        template = self.policy.next_template(self.trials())
        if template is None:
            self.exhausted = True
            return None
        return self.queue.start(template)

    def report(self, number: int, report: RunReport) -> bool:
        """Record what a running trial reported; True when it shall stop.

        One transaction, however many trials there are.
        """
        curve = {point.tokens: point.kl for point in report.curve if math.isfinite(point.kl)}
        # Optuna takes no intermediate values of several objectives.
        shown = None if self.objectives.several else curve
        self.queue.write(number, {PROGRESS: report.progress.to_dict()}, curve=shown)
        self.watcher.reported(self.queue.trial(number))
        return self.policy.stopping.stops(self.live[number], report.last, rivals=self.trials)

    def complete(
        self,
        number: int,
        kl: float,
        *,
        sequences: Sequence[float] = (),
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """A trial came to its end; a KL that is not finite fails it.

        `sequences` are the KLs of each sequence, `scores` those of tasks, by objective.
        """
        if not math.isfinite(kl):
            self.fail(number, f"the selection KL is {kl}")
            return
        shape = architecture_of(self.live[number])
        costs = self.space.costs.costs(shape, self.objectives.costs)
        values = self.objectives.values(kl, {**costs, **(scores or {})})
        self.queue.write(number, {SEQUENCES: list(sequences), **self._shown(number)})
        self.queue.complete(number, values)
        self.failures_in_a_row = 0
        self._ended(number)

    def stop_early(self, number: int) -> None:
        """A trial was worse than others at the same tokens."""
        self.queue.write(number, self._shown(number))
        self.queue.stop(number)
        self.failures_in_a_row = 0
        self._ended(number)

    def _ended(self, number: int) -> None:
        self.watcher.ended(self.queue.trial(number))

    def _shown(self, number: int) -> dict[str, Any]:
        progress = progress_of(self.queue.trial(number))
        return {} if progress is None else {name: progress.figures[name] for name in SHOWN}

    def fail(self, number: int, reason: str) -> None:
        """A trial cannot be scored."""
        self.queue.fail(number, reason)
        self.failures_in_a_row += 1
        self._ended(number)

    def lost(self, number: int, reason: str, *, counted: bool = True) -> bool:
        """A worker died over a running trial: put it back; False where it is given up.

        One that is not `counted` is put back however often that was.
        """
        again = self.queue.put_back(number, reason, counted=counted)
        self.failures_in_a_row += not again
        trial = self.queue.trial(number)
        (self.watcher.interrupted if again else self.watcher.ended)(trial)
        return again
