"""Agreement of a start with its study: made where it is new, refused where settings differ."""

from typing import Any

import optuna
from optuna.storages import RDBStorage

from common.errors import SearchError
from common.fingerprint import differences
from distill.train import FREE_SETTINGS
from search.config.objectives import Objectives
from search.database.attributes import FINGERPRINT

FREE_NOW = ("seeds",)
"""Parts of fingerprints of older versions that may change in a study now."""


def open_study(
    storage: RDBStorage, name: str, *, objectives: Objectives | None = None
) -> optuna.Study:
    """The study of this name, made if it is new. Raises SearchError for one of other objectives."""
    objectives = objectives or Objectives()
    study = optuna.create_study(
        study_name=name, storage=storage, directions=objectives.directions, load_if_exists=True
    )
    found = [direction.name.lower() for direction in study.directions]
    if found != objectives.directions:
        raise SearchError(
            f"the study {name} has {len(found)} objectives ({', '.join(found)}), not those of "
            f"--objectives {' '.join(objectives.names)}; put them back, or choose another --study"
        )
    if objectives.several:
        study.set_metric_names(list(objectives.names))
    return study


def check_fingerprint(study: optuna.Study, parts: dict[str, Any], *, bound: bool = False) -> None:
    """Record what the study depends on, or raise SearchError that names what differs now.

    Before the study has a trial it depends on nothing, and takes what it is given, unless it is
    `bound` by another driver that has begun with it.
    """
    recorded = study.user_attrs.get(FINGERPRINT)
    if recorded is None or not (bound or study.get_trials(deepcopy=False)):
        study.set_user_attr(FINGERPRINT, parts)
        return
    _require_same(study, _binding(recorded), parts=_binding(parts))


def require_same_settings(study: optuna.Study, parts: dict[str, Any]) -> None:
    """Raises SearchError for a study with other settings than `parts`, which need not be all."""
    recorded = study.user_attrs.get(FINGERPRINT)
    if recorded is None or not study.get_trials(deepcopy=False):
        return
    known = {name: part for name, part in _binding(recorded).items() if name in parts}
    _require_same(study, known, parts=_binding(parts))


def _require_same(study: optuna.Study, recorded: dict[str, Any], *, parts: dict[str, Any]) -> None:
    """Raises SearchError that names what differs."""
    differing = differences(recorded, parts)
    if differing:
        raise SearchError(
            f"the study {study.study_name} was made with other settings: {'; '.join(differing)}; "
            "put them back, or choose another --study"
        )


def _binding(recorded: dict[str, Any]) -> dict[str, Any]:
    """The parts without what may change in a study, and what only older versions recorded."""
    kept = {name: part for name, part in recorded.items() if name not in FREE_NOW}
    if "training" in kept:
        kept["training"] = {k: v for k, v in kept["training"].items() if k not in FREE_SETTINGS}
    return kept
