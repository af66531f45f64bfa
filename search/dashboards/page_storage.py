"""A study's database as optuna-dashboard shows it: readable, and with curves of several objectives.

Nothing of it is written, so that the study goes on as it was. A page through which trials could be
added would write these readable attributes into the study; `server` lets none of that through.
"""

import copy
import math
import time
import warnings
from collections.abc import Container
from typing import Any

from optuna import create_study
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.config.objectives import KL
from search.dashboards.attributes import is_student, study_attributes, trial_attributes
from search.dashboards.curves import curve_of, plot_attributes
from search.database.attributes import FINGERPRINT
from search.database.optuna_internals import CachedStorage, FrozenStudy, listed_id

PLOT_SECONDS = 10.0
"""How old a figure may be."""


class PageStorage(CachedStorage):
    """Reads as Optuna does, with attributes in words."""

    def __init__(self, storage: RDBStorage):
        super().__init__(storage)
        self._name_of_kl = _name_attributes(KL)
        self._plots: dict[int, tuple[float, dict[str, Any]]] = {}
        """When the figures of a study were drawn, and they."""

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
        if FINGERPRINT in study.user_attrs:
            several = len(study.directions) > 1
            added = self._plots_of(listed_id(study)) if several else self._name_of_kl
            shown.system_attrs = {**study.system_attrs, **added}
        return shown

    def _plots_of(self, study_id: int) -> dict[str, Any]:
        """Figures of a study; drawn again only every now and then, since pages ask all the time."""
        drawn, plots = self._plots.get(study_id, (-math.inf, {}))
        if time.monotonic() - drawn > PLOT_SECONDS:
            plots = plot_attributes(super().get_all_trials(study_id, deepcopy=False))
            self._plots[study_id] = time.monotonic(), plots
        return plots


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
    if is_student(trial):
        shown.intermediate_values = trial.intermediate_values or curve_of(trial)
    return shown
