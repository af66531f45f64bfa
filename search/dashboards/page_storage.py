"""A study's database as optuna-dashboard shows it: readable, and with curves of several objectives.

Nothing of it is written, so that the study goes on as it was. A page through which trials could be
added would write these readable attributes into the study; `server` lets none of that through.
"""

import copy
import warnings
from collections.abc import Container
from typing import Any

from optuna import create_study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.config.objectives import KL
from search.dashboards.attributes import study_attributes, trial_attributes
from search.dashboards.curves import curve_of, plot_attributes
from search.database.attributes import FINGERPRINT
from search.database.optuna_internals import CachedStorage, FrozenStudy, key_of


class PageStorage(CachedStorage):
    """Reads as Optuna does, with attributes in words."""

    def __init__(self, storage: RDBStorage):
        super().__init__(storage)
        self._name_of_kl = _name_attributes(KL)

    def get_all_studies(self) -> list[FrozenStudy]:
        """All of the database."""
        return [self._shown_study(study) for study in super().get_all_studies()]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Those of a study, each a copy."""
        trials = super().get_all_trials(study_id, deepcopy=False, states=states)
        return [_shown(trial) for trial in trials]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One of them."""
        return _shown(super().get_trial(trial_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Those of a study."""
        return study_attributes(super().get_study_user_attrs(study_id))

    def _shown_study(self, study: FrozenStudy) -> FrozenStudy:
        shown = copy.copy(study)
        shown.user_attrs = study_attributes(study.user_attrs)
        if len(study.directions) > 1:
            trials = super().get_all_trials(key_of(study), deepcopy=False)
            shown.system_attrs = {**study.system_attrs, **plot_attributes(trials)}
        elif FINGERPRINT in study.user_attrs:
            shown.system_attrs = {**study.system_attrs, **self._name_of_kl}
        return shown


def _name_attributes(objective: str) -> dict[str, Any]:
    """System attributes of a study whose objective has a name."""
    memory = InMemoryStorage()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        create_study(storage=memory).set_metric_names([objective])
    (written,) = memory.get_all_studies()
    return written.system_attrs


def _shown(trial: FrozenTrial) -> FrozenTrial:
    """A copy with readable attributes, and with its curve where Optuna has none of it."""
    shown = copy.copy(trial)
    shown.user_attrs = trial_attributes(trial)
    shown.intermediate_values = trial.intermediate_values or curve_of(trial)
    return shown
