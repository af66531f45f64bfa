"""Optuna's private parts are where `search.database.optuna_internals` expects them."""

import inspect
import pkgutil
from pathlib import Path

import optuna
import pytest

import search
from search.database import optuna_internals
from search.database.storage import open_storage

CALLED = {
    "optuna._hypervolume:compute_hypervolume": "loss_vals reference_point",
    "optuna.samplers:BaseGASampler._get_generation_key": "",
    "optuna.storages:RDBStorage._create_new_trial": "self study_id template_trial",
    "optuna.storages:RDBStorage._get_best_trial_id": "self study_id direction",
    "optuna.storages:RDBStorage._get_trials": "self study_id states included_trial_ids",
    "optuna.storages:RDBStorage._set_trial_attr_without_commit": "self session model_cls trial_id "
    "key value",
    "optuna.storages:RDBStorage._set_trial_intermediate_value_without_commit": "self session "
    "trial_id step intermediate_value",
    "optuna.storages:RDBStorage._set_trial_param": "self trial_id param_name param_value_internal "
    "distribution",
    "optuna.storages._cached_storage:_CachedStorage": "backend",
    "optuna.storages._cached_storage:_CachedStorage.get_all_studies": "self",
    "optuna.storages._cached_storage:_CachedStorage.get_all_trials": "self study_id "
    "deepcopy states",
    "optuna.trial:Trial": "study trial_id",
}
"""Name -> its first parameters."""


@pytest.mark.parametrize("name", CALLED)
def test_a_name_is_there_and_takes_what_it_took(name: str) -> None:
    parameters = list(inspect.signature(pkgutil.resolve_name(name)).parameters)
    wanted = CALLED[name].split()
    assert parameters[: len(wanted)] == wanted, f"{name} takes {parameters} now"


def test_what_a_study_and_its_storage_keep(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage)
    for owner, name in (
        (study, "_study_id"),
        (storage.get_all_studies()[0], "_study_id"),
        (study, "_storage"),
        (study._storage, "_backend"),
        (storage, "engine"),
        (storage, "scoped_session"),
        (study.ask(), "_trial_id"),
    ):
        assert hasattr(owner, name), f"{type(owner).__name__}.{name} has moved"
    assert optuna_internals.database_of(study) is storage
    tables = optuna.storages._rdb.models.BaseModel.metadata.tables
    for table in optuna_internals.ATTRIBUTE_TABLES:
        assert "value_json" in tables[table].columns, table
    assert optuna.storages.RDBStorage.__module__ == optuna_internals.STORAGE_LOGGER


def test_no_other_module_uses_them() -> None:
    private = (
        "optuna._",
        "optuna.storages._",
        "._storage",
        "._backend",
        "._trial_id",
        "._study_id",
    )
    for file in Path(search.__file__).parent.glob("**/*.py"):
        found = [name for name in private if name in file.read_text()]
        assert not found or file.name == "optuna_internals.py", (file, found)
