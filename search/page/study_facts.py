"""Facts of a study that its database alone knows: the trials of one student, and the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from distill.recipes import CurvePoint
from pruning import Architecture
from search.config.objectives import Objectives
from search.database.attributes import (
    ANCHOR,
    ARCHITECTURE,
    ERROR,
    FINGERPRINT,
    MEMBER,
    PARAMETERS,
    TEACHER,
    ZERO_SHOT,
)
from search.database.trial_facts import (
    FINISHED_STATES,
    architecture_of,
    last_by_origin,
    latest_by_origin,
    progress_of,
    ranked,
)
from search.study.trials_table import trials_table

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""What a trial's state is called."""


@dataclass(frozen=True)
class TrialFacts:
    """A trial as the page shows it."""

    trial: FrozenTrial
    """As Optuna has it."""

    @property
    def number(self) -> int:
        """In the study."""
        return int(self.trial.number)

    @property
    def architecture(self) -> Architecture | None:
        """Its student's shape; None where it has none yet."""
        return architecture_of(self.trial) if ARCHITECTURE in self.trial.user_attrs else None

    @property
    def parameters(self) -> int | None:
        """Of its student."""
        return self.trial.user_attrs.get(PARAMETERS)

    @property
    def origin(self) -> str:
        """Name of the configuration that was tried first, or that a sampler proposed it."""
        return str(self.trial.user_attrs.get(ANCHOR, "proposed"))

    @property
    def state(self) -> str:
        """In words."""
        return STATES[self.trial.state]

    @property
    def complete(self) -> bool:
        """Whether it came to its end."""
        return bool(self.trial.state == TrialState.COMPLETE)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped early."""
        return bool(self.trial.state == TrialState.PRUNED)

    @property
    def zero_shot(self) -> float | None:
        """KL before training."""
        return self.trial.user_attrs.get(ZERO_SHOT)

    @property
    def seconds(self) -> float | None:
        """That it has taken so far."""
        progress = progress_of(self.trial)
        return None if progress is None else progress.seconds

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Its evaluations so far, but those of a loss that diverged."""
        progress = progress_of(self.trial)
        points = () if progress is None else progress.curve
        return tuple(point for point in points if isfinite(point.kl))

    @property
    def last(self) -> CurvePoint | None:
        """The latest of them."""
        return self.curve[-1] if self.curve else None

    @property
    def error(self) -> str:
        """Why it failed; "" where it did not."""
        return str(self.trial.user_attrs.get(ERROR, ""))


@dataclass(frozen=True)
class StudyFacts:
    """The trials of one student of a study, and what the study was asked for."""

    study: optuna.Study
    """In its database."""
    member: str | None = None
    """Name in the family; None without one."""

    @property
    def name(self) -> str:
        """Of the study."""
        return str(self.study.study_name)

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Of the study."""
        return dict(self.study.user_attrs)

    @cached_property
    def frozen(self) -> list[FrozenTrial]:
        """All trials of the student, by number."""
        every = self.study.get_trials(deepcopy=False)
        return [trial for trial in every if trial.user_attrs.get(MEMBER) == self.member]

    @cached_property
    def trials(self) -> list[TrialFacts]:
        """The same for the page; an interrupted one and what it goes on as are both there."""
        return [TrialFacts(trial) for trial in self.frozen]

    @cached_property
    def scored(self) -> list[TrialFacts]:
        """Those that were evaluated, each once, by number."""
        latest = [TrialFacts(trial) for trial in latest_by_origin(self.frozen).values()]
        return [trial for trial in latest if trial.curve and trial.architecture is not None]

    @property
    def best(self) -> TrialFacts | None:
        """The one of the lowest selection KL after a whole short run; None before the first."""
        complete = [trial for trial in ranked(self.frozen) if trial.state == TrialState.COMPLETE]
        return TrialFacts(complete[0]) if complete else None

    @cached_property
    def objectives(self) -> Objectives:
        """What the trials minimise."""
        names = self.study.metric_names or self.settings.get("objectives")
        return Objectives(tuple(names)) if names else Objectives()

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that the scores depend on, by name; {} before the study has begun."""
        return dict(self.attributes.get(FINGERPRINT) or {})

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """Name, sizes and parameters of the teacher; None in studies of before they were
        recorded."""
        return self.attributes.get(TEACHER)

    @property
    def finished(self) -> int:
        """Trials that were scored to the end or stopped early."""
        return sum(trial.state in FINISHED_STATES for trial in self.frozen)

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state, in words; one that was interrupted counts once."""
        counts = dict.fromkeys(STATES.values(), 0)
        for trial in last_by_origin(self.frozen).values():
            counts[STATES[trial.state]] += 1
        return {name: count for name, count in counts.items() if count}

    def table(self) -> pd.DataFrame:
        """As trials.csv has them."""
        return trials_table(self.frozen, self.objectives)


def members_of(study: optuna.Study) -> list[str | None]:
    """Names of the members that have trials, the largest first; [None] without a family."""
    trials = study.get_trials(deepcopy=False)
    names = {trial.user_attrs.get(MEMBER) for trial in trials} or {None}
    return sorted(names, key=lambda name: -float(name) if name else 0.0)
