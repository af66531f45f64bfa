"""The study: the only record of trials. Every change of a trial's state goes through here."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from pruning import Architecture
from search.errors import SearchError
from search.halving import ANCHOR, ORIGIN, SuccessiveHalving, latest_by_origin, origin_of
from search.proposals import propose
from search.space import Space
from search.workspace import differences

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
FINGERPRINT = "fingerprint"
NOT_CONTINUED = ("driver", "error", "busy_seconds")
CONTINUES = "continues"
"""Number of the interrupted trial that a trial goes on with."""


def open_study(storage: RDBStorage, name: str) -> optuna.Study:
    """The study of this name, made if it is new."""
    return optuna.create_study(
        study_name=name, storage=storage, direction="minimize", load_if_exists=True
    )


def check_fingerprint(study: optuna.Study, parts: dict[str, Any]) -> None:
    """Record what the study depends on, or raise SearchError that names what differs now.

    Before the study has a trial it depends on nothing, and takes what it is given.
    """
    recorded = study.user_attrs.get(FINGERPRINT)
    if recorded is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(FINGERPRINT, parts)
        return
    differing = differences(recorded, parts)
    if differing:
        raise SearchError(
            f"the study {study.study_name} was made with other settings: {'; '.join(differing)}; "
            "put them back, or choose another --study"
        )


@dataclass
class Record:
    """A study, its space, and the trials that this driver has running."""

    study: optuna.Study
    space: Space
    sampler: str
    seed: int
    max_retries: int
    token: str
    """Of the driver that writes; stands in every trial that it starts."""
    live: dict[int, Trial] = field(default_factory=dict)
    anchors: dict[str, Architecture | None] = field(default_factory=dict)
    """Architectures to try before any proposal, by name."""
    failures_in_a_row: int = 0
    exhausted: bool = False

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def finished(self) -> int:
        """Architectures scored to the end or stopped early; failed ones do not count."""
        return sum(trial.state in FINISHED for trial in self.trials())

    def use_halving(self, rungs: tuple[int, ...], reduction: int) -> None:
        self.study.pruner = SuccessiveHalving(rungs, reduction)

    # Before the trials

    def add_anchors(self) -> list[str]:
        """Have the anchors tried before any proposal; returns a line per anchor."""
        self.anchors = self.space.anchors()
        return [
            f"anchor: {name} {architecture}" if architecture else f"anchor: no {name} in the band"
            for name, architecture in self.anchors.items()
        ]

    def _next_anchor(self) -> tuple[str, Architecture] | None:
        """The first anchor whose architecture no trial has tried yet."""
        tried = self.tried()
        for name, architecture in self.anchors.items():
            if architecture and architecture not in tried:
                return name, architecture
        return None

    def _queue(self, architecture: Architecture, attributes: dict[str, Any]) -> None:
        self.study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=self.space.params(architecture),
                distributions=self.space.distributions(),
                user_attrs={
                    "architecture": architecture.to_dict(),
                    "parameters": self.space.parameters_of[architecture],
                    **attributes,
                },
            )
        )

    def reclaim(self) -> int:
        """Take up again the trials that a dead driver left running; returns how many.

        One whose driver died more than `max_retries` times over it is given up as failed.
        """
        return self._requeue_running("interrupted: the driver was gone", counted=True)

    def release(self) -> None:
        """Put back what this driver has running, so that none stays RUNNING."""
        self.live.clear()
        self._requeue_running("interrupted: the driver was stopped", counted=False)

    def _requeue_running(self, reason: str, counted: bool) -> int:
        running = self.study.get_trials(deepcopy=True, states=(TrialState.RUNNING,))
        return sum([self._requeue(trial, reason, counted) for trial in running])

    def _requeue(self, trial: FrozenTrial, reason: str, counted: bool) -> bool:
        interruptions = trial.user_attrs.get("interruptions", 0) + counted
        again = interruptions <= self.max_retries and "architecture" in trial.user_attrs
        # The continuation first: a driver killed between the two steps loses nothing.
        if again and not any(t.user_attrs.get(CONTINUES) == trial.number for t in self.trials()):
            kept = {k: v for k, v in trial.user_attrs.items() if k not in NOT_CONTINUED}
            kept |= {ORIGIN: origin_of(trial), CONTINUES: trial.number}
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**kept, "interruptions": interruptions},
                    intermediate_values=trial.intermediate_values,
                )
            )
        self.study._storage.set_trial_user_attr(trial._trial_id, "error", reason)
        self.study.tell(trial.number, state=TrialState.FAIL)
        return again

    # During the trials

    def tried(self) -> set[Architecture]:
        """Architectures that must not be proposed again, whatever became of them."""
        return {
            Architecture.from_dict(trial.user_attrs["architecture"])
            for trial in self.trials()
            if "architecture" in trial.user_attrs
        }

    def next_trial(self) -> Trial | None:
        """Start the next waiting trial, or a new proposal; None when the space is exhausted."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if anchor := self._next_anchor():
                self._queue(anchor[1], {ANCHOR: anchor[0]})
            elif shape := propose(self.space, self.trials(), self.tried(), self.sampler, self.seed):
                self._queue(shape, {})
            else:
                self.exhausted = True
                return None
        trial = self.study.ask()
        trial.set_user_attr("driver", self.token)
        trial.set_user_attr(ORIGIN, int(trial.user_attrs.get(ORIGIN, trial.number)))
        trial.set_user_attr("started", time.time())
        self.live[trial.number] = trial
        return trial

    def report(self, number: int, result: dict[str, Any]) -> bool:
        """Record what a running trial reported; True when it shall stop."""
        trial = self.live[number]
        for name in ("tokens", "resumed_tokens", "seconds", "busy_seconds", "curve"):
            trial.set_user_attr(name, result[name])
        known = self.study.get_trials(deepcopy=False)[number].intermediate_values
        for point in result["curve"]:
            if point["tokens"] not in known and math.isfinite(point["kl"]):
                trial.report(point["kl"], point["tokens"])
        last = result["curve"][-1]
        for name in ("kl", "ce", "top1_agreement"):
            trial.set_user_attr(name, last[name])
        return math.isfinite(last["kl"]) and trial.should_prune()

    def complete(self, number: int, kl: float) -> None:
        """A trial came to its end; a KL that is not finite fails it."""
        if not math.isfinite(kl):
            self.fail(number, f"the selection KL is {kl}")
            return
        self.failures_in_a_row = 0
        self.study.tell(self.live.pop(number), kl)

    def stop_early(self, number: int) -> None:
        self.failures_in_a_row = 0
        self.study.tell(self.live.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self.failures_in_a_row += 1
        trial = self.live.pop(number)
        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    # After the trials

    def ranked(self) -> list[FrozenTrial]:
        """Scored trials, best selection KL first; those stopped early come after all others."""
        scored = [t for t in latest_by_origin(self.trials()).values() if t.state in FINISHED]
        return sorted(
            scored,
            key=lambda t: (
                t.state != TrialState.COMPLETE,
                -t.user_attrs.get("tokens", 0),
                t.user_attrs.get("kl", math.inf),
                origin_of(t),
            ),
        )
