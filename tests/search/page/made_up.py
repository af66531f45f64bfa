"""A study with made-up trials, as its database has them."""

import warnings
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from pruning import Architecture

TEACHER = Architecture(6, 192, 8, 2, 640)
RUNGS = (100, 200, 400)
AXES = {
    "layers": IntDistribution(2, 6),
    "hidden": IntDistribution(64, 192, step=8),
    "heads": IntDistribution(2, 8, step=2),
    "ffn": IntDistribution(160, 640, step=16),
}


def shape_of(number: int) -> Architecture:
    """The architecture of a trial."""
    return Architecture(
        2 + number % 5, 64 + 8 * (number % 17), 2 + 2 * (number % 4), 2, 160 + 16 * number
    )


def add_trial(
    study: optuna.Study, number: int, *, member: str | None = None, state: TrialState | None = None
) -> None:
    """Trial `number`, every third stopped early unless a state is given, the first the uniform
    shrink; its KL falls with its hidden size and its tokens."""
    shape = shape_of(number)
    if state is None:
        state = TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE
    rungs = RUNGS[:2] if state == TrialState.PRUNED else RUNGS
    curve = [
        {
            "tokens": tokens,
            "loss": 1.0,
            "kl": 100.0 / (shape.hidden + tokens / 10 + number),
            "ce": 2.0,
            "top1_agreement": 0.5,
        }
        for tokens in rungs
    ]
    progress = {
        "tokens": rungs[-1],
        "resumed_tokens": 0,
        "seconds": 2.0,
        "busy_seconds": 1.0,
        "curve": curve,
    }
    attributes: dict[str, Any] = {
        "architecture": shape.to_dict(),
        "parameters": 1_000 * shape.hidden,
        "progress": progress,
    }
    if not number:
        attributes["anchor"] = "uniform shrink"
    if member is not None:
        attributes["member"] = member
    value = curve[-1]["kl"] if state == TrialState.COMPLETE else None
    several = len(study.directions) > 1
    values = (
        None
        if value is None
        else [value, float(shape.ffn * (1 + number % 2))][: 2 if several else 1]
    )
    study.add_trial(
        create_trial(
            state=state,
            values=values,
            params={axis: getattr(shape, axis) for axis in AXES},
            distributions=dict(AXES),
            user_attrs=attributes,
        )
    )


def made_up_study(
    trials: int = 24,
    *,
    storage: str | None = None,
    name: str = "study",
    objectives: tuple[str, ...] = ("kl",),
) -> optuna.Study:
    """A study of so many trials."""
    study = optuna.create_study(
        study_name=name, storage=storage, directions=["minimize"] * len(objectives)
    )
    if len(objectives) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    study.set_user_attr(
        "fingerprint",
        {
            "teacher": "0123456789abcdef",
            "block": 64,
            "objectives": list(objectives),
            "training": {"batch": 2, "average": None},
            "space": {"hidden": list(range(64, 200, 8))},
        },
    )
    study.set_user_attr(
        "teacher", {"name": "T", "sizes": TEACHER.to_dict(), "parameters": 3_344_832}
    )
    for number in range(trials):
        add_trial(study, number)
    return study
