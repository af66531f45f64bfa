"""Private parts of Optuna, all of them, behind functions of our own.

Optuna may change these names in any release, hence the upper bound of its version in
pyproject.toml; tests/search/database/test_optuna_internals.py says which of them moved.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.samplers import BaseGASampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb.models import TrialUserAttributeModel
from optuna.study._frozen import FrozenStudy as FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState

STORAGE_LOGGER = "optuna.storages._rdb.storage"
"""Name of the logger that warns of every read that a busy database refuses."""
CALLED_BY_CACHE = ("_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param")
"""Methods of `RDBStorage` that Optuna's cache before it calls."""
ATTRIBUTE_TABLES = (
    "study_user_attributes",
    "study_system_attributes",
    "trial_user_attributes",
    "trial_system_attributes",
)
"""Tables of the database whose column value_json has values of any length."""


CachedStorage = _CachedStorage
"""A database whose finished trials are read once; it is what `optuna.load_study` makes of one."""


def study_id(study: optuna.Study) -> int:
    """Key of the study in its database."""
    return study._study_id


def storage_of(study: optuna.Study) -> BaseStorage:
    """The study's storage, which is Optuna's cache of the database where it is in one."""
    return study._storage


def database_of(study: optuna.Study) -> RDBStorage | None:
    """The database behind the cache; None for a study in memory."""
    backend = getattr(study._storage, "_backend", None)
    return backend if isinstance(backend, RDBStorage) else None


def handle_of(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """The trial as an objective function is given it, for a pruner to decide on."""
    return Trial(study, trial._trial_id)


def add_trial(study: optuna.Study, template: FrozenTrial) -> FrozenTrial:
    """A new trial like the template, in one transaction; `study.add_trial` gives no number back."""
    storage = study._storage
    return storage.get_trial(storage.create_new_trial(study._study_id, template))


def run_waiting(study: optuna.Study, waiting: FrozenTrial, *, name: str, value: Any) -> FrozenTrial:
    """Have a waiting trial run, the attribute `name` written first; returns it as it is then.

    `study.ask` takes any waiting trial, and not a certain one.
    """
    storage = study._storage
    storage.set_trial_user_attr(waiting._trial_id, name, value)
    storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
    return storage.get_trial(waiting._trial_id)


def write_together(
    study: optuna.Study,
    trial: FrozenTrial | Trial,
    *,
    attributes: Mapping[str, Any],
    values: Mapping[int, float],
) -> None:
    """Write attributes of a trial and values by step; in a database in one transaction.

    Each of Optuna's own writes is a transaction, which a disk takes milliseconds to make safe.
    """
    key, database = trial._trial_id, database_of(study)
    if database is None:
        for name, value in attributes.items():
            study._storage.set_trial_user_attr(key, name, value)
        for step, value in values.items():
            study._storage.set_trial_intermediate_value(key, step, value)
        return
    with database.scoped_session() as session, session.begin():
        for name, value in attributes.items():
            database._set_trial_attr_without_commit(
                session, TrialUserAttributeModel, key, name, value
            )
        for step, value in values.items():
            database._set_trial_intermediate_value_without_commit(session, key, step, value)


def put_in_generation(trial: FrozenTrial, sampler: BaseGASampler, *, generation: int) -> None:
    """Mark a trial as of this generation of a genetic sampler."""
    trial.system_attrs = {sampler._get_generation_key(): generation}


def listed_id(study: FrozenStudy) -> int:
    """Key in its database of a study as `BaseStorage.get_all_studies` lists it."""
    return study._study_id


def hypervolume(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume that the rows [candidates, objectives] dominate below `reference` [objectives]."""
    return float(compute_hypervolume(values, reference))
