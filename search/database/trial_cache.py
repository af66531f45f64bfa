"""Trials of a study as its driver knows them, and every write to them.

Whenever Optuna is asked for the trials it reads all of them anew that are not finished: tens of
milliseconds where dozens run. What a driver wrote it knows; only what others wrote must be read.
"""

import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.database import optuna_internals
from search.database.storage import PatientStorage


class TrialLog:
    """Every write goes to the database first, and only then to what is known here."""

    def __init__(self, study: optuna.Study):
        self.study = study
        self._known: dict[int, FrozenTrial] = {}
        self._read_at = -math.inf

    def trials(self, age: float) -> list[FrozenTrial]:
        """All of the study, by number; what others wrote is read if it may be so many seconds old.

        Not to be changed by the caller.
        """
        if time.monotonic() - self._read_at >= age:
            self.read()
        return [self._known[number] for number in sorted(self._known)]

    def trial(self, number: int) -> FrozenTrial:
        """What is known of one."""
        return self._known[number]

    def read(self) -> None:
        """Forget what is known, and read it."""
        began = time.monotonic()
        trials = self.study.get_trials(deepcopy=False)
        self._known = {trial.number: _copy_if_open(trial) for trial in trials}
        self._read_at = began

    def add(self, template: FrozenTrial) -> FrozenTrial:
        """A new trial like the template, in one transaction."""
        return self._keep(optuna_internals.add_trial(self.study, template))

    def run(self, waiting: FrozenTrial, attribute: str, *, driver: str) -> FrozenTrial | None:
        """Have a waiting trial run, with its driver as an attribute; None if another was faster."""
        # The driver first: a running trial without one would be taken for abandoned.
        trial = optuna_internals.run_waiting(self.study, waiting, name=attribute, value=driver)
        mine = trial.user_attrs.get(attribute) == driver
        kept = self._keep(trial)
        return kept if mine and kept.state == TrialState.RUNNING else None

    def write(
        self,
        number: int,
        attributes: Mapping[str, Any],
        *,
        curve: Mapping[int, float] | None = None,
    ) -> None:
        """Attributes, and values by step where there is none yet, in one transaction."""
        trial = self._known[number]
        new = {k: v for k, v in (curve or {}).items() if k not in trial.intermediate_values}
        write_together(self.study, trial, attributes=attributes, values=new)
        trial.user_attrs.update(json.loads(json.dumps(attributes)))  # as they would be read
        trial.intermediate_values.update(new)

    def end(
        self, number: int, values: Sequence[float] | None = None, *, state: TrialState | None = None
    ) -> None:
        """As `study.tell`."""
        self._keep(self.study.tell(number, values, state))

    def _keep(self, trial: FrozenTrial) -> FrozenTrial:
        self._known[trial.number] = _copy_if_open(trial)
        return self._known[trial.number]


def write_together(
    study: optuna.Study,
    trial: FrozenTrial | Trial,
    *,
    attributes: Mapping[str, Any],
    values: Mapping[int, float],
) -> None:
    """As `optuna_internals.write_together`; a database that is busy or away is waited for."""

    def write() -> None:
        optuna_internals.write_together(study, trial, attributes=attributes, values=values)

    database = optuna_internals.database_of(study)
    if isinstance(database, PatientStorage):
        database.patiently(write)
    else:
        write()


def _copy_if_open(trial: FrozenTrial) -> FrozenTrial:
    """A copy of a trial that still changes; Optuna keeps the other."""
    if trial.state.is_finished():
        return trial
    own = copy.copy(trial)
    own.user_attrs = dict(trial.user_attrs)
    own.intermediate_values = dict(trial.intermediate_values)
    return own
