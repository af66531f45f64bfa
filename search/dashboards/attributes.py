"""Attributes of a study and its trials as people read them: no tokens, no lists of figures.

The study keeps its own, which the next start reads; these are only for a page.
"""

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from search.database.attributes import (
    ANCHOR,
    ARCHITECTURE,
    CONTINUES,
    DRIVER,
    FINGERPRINT,
    LEASE,
    LIBRARY_SECONDS,
    ORIGIN,
    PARAMETERS,
    PER_LAYER,
    PLANNED_SPEED,
    PREPARATION_SECONDS,
    PROGRESS,
    RESULTS,
    SEQUENCES,
    SHOWN,
    TRIAL_PHASES,
    ZERO_SHOT,
)
from search.database.lease import Driver
from search.database.trial_facts import architecture_of, progress_of

HIDDEN = (DRIVER, SEQUENCES, PROGRESS, *SHOWN)
"""Attributes of a trial that stand there in other words, or are of use to programs only."""
NAMES = {
    ANCHOR: "tried first as",
    ZERO_SHOT: "kl before training",
    ORIGIN: "goes on with trial",
    CONTINUES: "goes on with",
}
"""Names of attributes of a trial that are not words."""
SECONDS = {
    PREPARATION_SECONDS: "preparation, seconds",
    LIBRARY_SECONDS: "blocks of layers, seconds",
}
"""Of a study."""
GB = 1e9


def trial_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Those of a trial: its architecture as text, its last evaluation, its speed and memory."""
    own = trial.user_attrs
    if not is_student(trial):
        return {name: _plain(value) for name, value in own.items()}
    shown: dict[str, Any] = {ARCHITECTURE: str(architecture_of(trial))}
    progress = progress_of(trial)
    if progress is not None:
        figures = progress.figures
        shown |= {name: _rounded(figures[name]) for name in SHOWN}
        trained = progress.tokens - progress.resumed_tokens
        if progress.busy_seconds > 0:
            shown["tokens per second"] = _rounded(trained / progress.busy_seconds)
        if progress.peak_bytes:
            shown["peak memory, GB"] = _rounded(progress.peak_bytes / GB)
    others = {name: value for name, value in own.items() if name not in (*HIDDEN, ARCHITECTURE)}
    shown |= {NAMES.get(name, name): _plain(value) for name, value in others.items()}
    return shown


def is_student(trial: FrozenTrial) -> bool:
    """Whether a search made the trial; others may keep their studies in the same database."""
    return isinstance(trial.user_attrs.get(ARCHITECTURE), dict) and PARAMETERS in trial.user_attrs


def study_attributes(own: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a study: its settings one by one, its live drivers, how its slots were used."""
    shown: dict[str, Any] = {}
    drivers = [str(driver) for name, lease in own.items() if (driver := _live(name, lease))]
    if drivers:
        shown["driver"] = ", ".join(drivers)
    for name, value in own.items():
        if name.startswith((LEASE, PER_LAYER, RESULTS)) or name == FINGERPRINT:
            continue
        if name == TRIAL_PHASES:
            shown |= _phases(value)
        elif name == PLANNED_SPEED:
            shown["planned speed, TFLOP/s"] = _rounded(value / 1e12)
        elif name in SECONDS:
            shown[SECONDS[name]] = round(value)
        else:
            shown[name] = _plain(value)
    return shown | _flat(own.get(FINGERPRINT, {}))


def _live(name: str, lease: Any) -> Driver | None:
    """The driver of a lease, if it is one and the driver lives."""
    if not name.startswith(LEASE) or not lease:
        return None
    driver = Driver(**{key: value for key, value in lease.items() if key != "renewed"})
    return None if driver.is_gone(lease["renewed"]) else driver


def _phases(phases: list[dict[str, float]]) -> dict[str, Any]:
    """All starts together."""
    wall = sum(phase["seconds"] for phase in phases)
    offered = sum(phase["seconds"] * phase["slots"] for phase in phases)
    busy = sum(phase["busy_seconds"] for phase in phases)
    return {
        "trials, seconds": round(wall),
        "worker utilisation": f"{busy / offered:.0%}" if offered else "unknown",
    }


def _flat(settings: Mapping[str, Any], prefix: str = "setting ") -> dict[str, Any]:
    """Settings inside settings by one name each; those that are not set are left out."""
    shown: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            shown |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            shown[prefix + name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    """A number or text as it is; a list or mapping in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_plain(part)) for part in value)
    return _rounded(value)


def _rounded(value: Any) -> Any:
    """A float to the digits that say something; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
