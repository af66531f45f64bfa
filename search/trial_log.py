"""The trials of a study as its driver knows them, and every write to them.

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
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import TrialUserAttributeModel
from optuna.trial import FrozenTrial, TrialState

from search.storage import PatientStorage


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
        found = self.study.get_trials(deepcopy=False)
        self._known = {trial.number: _own(trial) for trial in found}
        self._read_at = began

    def add(self, template: FrozenTrial) -> FrozenTrial:
        """A new trial like the template, in one transaction."""
        identity = self.study._storage.create_new_trial(self.study._study_id, template)
        return self._keep(self.study._storage.get_trial(identity))

    def run(self, waiting: FrozenTrial, attribute: str, driver: str) -> FrozenTrial | None:
        """Have a waiting trial run, with its driver as an attribute; None if another was faster."""
        storage = self.study._storage
        # The driver first: a running trial without one would be taken for abandoned.
        storage.set_trial_user_attr(waiting._trial_id, attribute, driver)
        storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        found = self._keep(storage.get_trial(waiting._trial_id))
        mine = found.user_attrs.get(attribute) == driver
        return found if mine and found.state == TrialState.RUNNING else None

    def write(
        self, number: int, attributes: Mapping[str, Any], curve: Mapping[int, float] | None = None
    ) -> None:
        """Attributes, and values by step where there is none yet; see `write_together`."""
        trial = self._known[number]
        new = {k: v for k, v in (curve or {}).items() if k not in trial.intermediate_values}
        write_together(self.study._storage, trial._trial_id, attributes, new)
        trial.user_attrs.update(json.loads(json.dumps(attributes)))  # as they would be read
        trial.intermediate_values.update(new)

    def end(
        self, number: int, values: Sequence[float] | None = None, state: TrialState | None = None
    ) -> None:
        """As `study.tell`."""
        self._keep(self.study.tell(number, values, state))

    def _keep(self, trial: FrozenTrial) -> FrozenTrial:
        self._known[trial.number] = _own(trial)
        return self._known[trial.number]


def write_together(
    storage: BaseStorage, trial: int, attributes: Mapping[str, Any], values: Mapping[int, float]
) -> None:
    """Write attributes of a trial and values by step; in a database in one transaction."""
    database = getattr(storage, "_backend", None)
    if not isinstance(database, RDBStorage):
        for name, value in attributes.items():
            storage.set_trial_user_attr(trial, name, value)
        for step, value in values.items():
            storage.set_trial_intermediate_value(trial, step, value)
        return

    # Each of Optuna's own writes is a transaction, which a disk takes milliseconds to make safe.
    def together() -> None:
        with database.scoped_session() as session, session.begin():
            for name, value in attributes.items():
                database._set_trial_attr_without_commit(
                    session, TrialUserAttributeModel, trial, name, value
                )
            for step, value in values.items():
                database._set_trial_intermediate_value_without_commit(session, trial, step, value)

    if isinstance(database, PatientStorage):
        database.patiently(together)
    else:
        together()


def _own(trial: FrozenTrial) -> FrozenTrial:
    """A copy of one that still changes; Optuna keeps the other."""
    if trial.state.is_finished():
        return trial
    own = copy.copy(trial)
    own.user_attrs = dict(trial.user_attrs)
    own.intermediate_values = dict(trial.intermediate_values)
    return own
