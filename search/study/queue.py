"""Queue of one student's trials: started, ended, and taken up again after an interruption.

The study is the only record of trials, and every change of a trial's state goes through here.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.database.attributes import (
    ARCHITECTURE,
    CONTINUES,
    DRIVER,
    ERROR,
    INTERRUPTED,
    INTERRUPTIONS,
    MEMBER,
    NOT_CONTINUED,
    ORIGIN,
)
from search.database.coordination import Coordination
from search.database.trial_cache import TrialLog
from search.database.trial_facts import FINISHED_STATES, origin_of

FRESH_SECONDS = 2.0
"""How old what other drivers wrote may be while trials of this one run."""


@dataclass
class TrialQueue:
    """One driver's hold of the trials of a student."""

    study: optuna.Study
    """Where the trials are recorded."""
    coordination: Coordination
    """The driver that writes, and what it settles with other drivers."""
    max_retries: int
    """How often a trial may be interrupted before it is given up as failed."""
    member: str | None = None
    """Of a family; its trials are told from those of the other members by it."""
    live: dict[int, FrozenTrial] = field(default_factory=dict)
    """The trials that this driver has running, as they were when they were started, by number."""

    def __post_init__(self) -> None:
        self._log = TrialLog(self.study)

    # What there is

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those of the student, of all states or of these. Not to be changed."""
        return [
            trial
            for trial in self._log.trials(self._age())
            if trial.user_attrs.get(MEMBER) == self.member and (not states or trial.state in states)
        ]

    def trial(self, number: int) -> FrozenTrial:
        """What is known of one."""
        return self._log.trial(number)

    def finished(self) -> int:
        """Architectures scored to the end or stopped early; failed ones do not count."""
        return len(self.trials(*FINISHED_STATES))

    def open_places(self, target: int) -> int:
        """How many more trials may be started so that `target` finish; never negative."""
        return self.coordination.open_places(self.trials(), target)

    def _age(self) -> float:
        """Seconds after which what others wrote is read again."""
        if not self.coordination.shared:
            return math.inf
        return FRESH_SECONDS if self.live else 0.0

    # From the start of a trial to its end

    def start_waiting(self) -> FrozenTrial | None:
        """Take up the first trial that waits: one that was interrupted."""
        for waiting in self.trials(TrialState.WAITING):
            if not self.coordination.claim(f"trial {waiting.number}"):
                continue
            trial = self._log.run(waiting, DRIVER, driver=self.coordination.token)
            if trial is not None:
                return self._begun(trial)
        return None

    def start(self, template: FrozenTrial) -> FrozenTrial:
        """A new running trial like the template, in one transaction."""
        new = copy.copy(template)
        new.user_attrs = {**template.user_attrs, DRIVER: self.coordination.token}
        if self.member is not None:
            new.user_attrs[MEMBER] = self.member
        return self._begun(self._log.add(new))

    def _begun(self, trial: FrozenTrial) -> FrozenTrial:
        self.live[trial.number] = trial
        return trial

    def write(
        self,
        number: int,
        attributes: Mapping[str, Any],
        *,
        curve: Mapping[int, float] | None = None,
    ) -> None:
        """Attributes of a running trial and KL by tokens, in one transaction."""
        self._log.write(number, attributes, curve=curve)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with its objectives."""
        self._end(number, values)

    def stop(self, number: int) -> None:
        """End a trial early."""
        self._end(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """End a trial as failed."""
        self._log.write(number, {ERROR: reason})
        self._end(number, state=TrialState.FAIL)

    def _end(
        self, number: int, values: Sequence[float] | None = None, *, state: TrialState | None = None
    ) -> None:
        """Once it has ended, it is not this driver's any more."""
        self._log.end(number, values, state=state)
        del self.live[number]

    # After an interruption

    def reclaim(self) -> int:
        """Take up again the trials that dead drivers left running; returns how many.

        One that was interrupted more than `max_retries` times is given up as failed.
        """
        with self.coordination.exclusive():
            self._log.read()
            left = [
                trial
                for trial in self.trials(TrialState.RUNNING)
                if trial.number not in self.live and self._is_abandoned(trial)
            ]
            reason = f"{INTERRUPTED}the driver was gone"
            return sum([self._requeue(trial, reason, counted=True) for trial in left])

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        own = trial.user_attrs.get(DRIVER) == self.coordination.token
        return own or bool(self.coordination.abandoned([trial]))  # own: written, not noted: a break

    def release(self) -> None:
        """Put back what this driver has running, so that none stays RUNNING."""
        numbers = set(self.live)
        self.live.clear()
        self._log.read()  # an interruption may have come between a write and its note in the log
        for trial in self.trials(TrialState.RUNNING):
            own = trial.user_attrs.get(DRIVER) == self.coordination.token
            if trial.number in numbers or own:
                self._requeue(trial, f"{INTERRUPTED}the driver was stopped", counted=False)

    def put_back(self, number: int, reason: str, *, counted: bool = True) -> bool:
        """Put back a running trial whose worker died; False where it is given up.

        One that is not `counted` is put back however often that was.
        """
        del self.live[number]
        (trial,) = [t for t in self.trials(TrialState.RUNNING) if t.number == number]
        return self._requeue(trial, reason, counted=counted)

    def _requeue(self, trial: FrozenTrial, reason: str, *, counted: bool) -> bool:
        interruptions = trial.user_attrs.get(INTERRUPTIONS, 0) + counted
        again = interruptions <= self.max_retries and ARCHITECTURE in trial.user_attrs
        # The continuation first: a driver killed between the two steps loses nothing.
        if again and not any(t.user_attrs.get(CONTINUES) == trial.number for t in self.trials()):
            kept = {k: v for k, v in trial.user_attrs.items() if k not in NOT_CONTINUED}
            kept |= {ORIGIN: origin_of(trial), CONTINUES: trial.number}
            self._log.add(
                create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**kept, INTERRUPTIONS: interruptions},
                    intermediate_values=trial.intermediate_values,
                )
            )
        self._log.write(trial.number, {ERROR: reason})
        self._log.end(trial.number, state=TrialState.FAIL)
        return again
