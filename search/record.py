"""The study: the only record of trials. Every change of a trial's state goes through here."""

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from distill.settings import FREE_SETTINGS
from pruning import Architecture
from search.anchors import UNIFORM
from search.errors import SearchError
from search.halving import ORIGIN, Rungs, latest_by_origin, origin_of
from search.objectives import Objectives
from search.proposals import FAILED, RUNNING, STOPPED, Observation, propose
from search.proposals import FINISHED as FINISHED_RUN
from search.samplers import SamplerSettings
from search.sharing import Sharing
from search.space import Space
from search.trial_log import TrialLog
from search.workspace import differences

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ANCHOR = "anchor"
FINGERPRINT = "fingerprint"
FREE_NOW = ("seeds",)
"""Parts of fingerprints of older versions that may change in a study now."""
PROGRESS = "progress"
"""What a trial has reported: tokens, seconds, curve. One attribute, since each is a transaction."""
SHOWN = ("kl", "ce", "top1_agreement", "tokens", "seconds")
"""What of it stands beside the trial in a dashboard once it has ended."""
ZERO_SHOT = "zero_shot"
"""KL before training, where it was scored."""
MEMBER = "member"
SEQUENCES = "kl_sequences"
"""Selection KL of each sequence at the end of the short run."""
NOT_CONTINUED = ("driver", "error")
CONTINUES = "continues"
"""Number of the interrupted trial that a trial goes on with."""
DRIVER = "driver"
"""Token of the driver that runs a trial."""
FRESH_SECONDS = 2.0
"""How old what other drivers wrote may be while trials of this one run."""


def open_study(
    storage: RDBStorage, name: str, objectives: Objectives | None = None
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


def check_fingerprint(study: optuna.Study, parts: dict[str, Any], bound: bool = False) -> None:
    """Record what the study depends on, or raise SearchError that names what differs now.

    Before the study has a trial it depends on nothing, and takes what it is given, unless it is
    `bound` by another driver that has begun with it.
    """
    recorded = study.user_attrs.get(FINGERPRINT)
    if recorded is None or not (bound or study.get_trials(deepcopy=False)):
        study.set_user_attr(FINGERPRINT, parts)
        return
    _require_same(study, _binding(recorded), _binding(parts))


def require_same_settings(study: optuna.Study, parts: dict[str, Any]) -> None:
    """Raises SearchError for a study with other settings than `parts`, which need not be all."""
    recorded = study.user_attrs.get(FINGERPRINT)
    if recorded is None or not study.get_trials(deepcopy=False):
        return
    known = {name: part for name, part in _binding(recorded).items() if name in parts}
    _require_same(study, known, _binding(parts))


def _require_same(study: optuna.Study, recorded: dict[str, Any], parts: dict[str, Any]) -> None:
    differing = differences(recorded, parts)
    if differing:
        raise SearchError(
            f"the study {study.study_name} was made with other settings: {'; '.join(differing)}; "
            "put them back, or choose another --study"
        )


def _binding(recorded: dict[str, Any]) -> dict[str, Any]:
    """Without what may change in a study, and what only older versions recorded."""
    kept = {name: part for name, part in recorded.items() if name not in FREE_NOW}
    if "training" in kept:
        kept["training"] = {k: v for k, v in kept["training"].items() if k not in FREE_SETTINGS}
    return kept


def progress_of(trial: FrozenTrial | Trial) -> dict[str, Any]:
    """What a trial has reported so far: tokens, resumed_tokens, seconds, busy_seconds, curve,
    and the last figures of the curve; empty before its first report."""
    reported: dict[str, Any] = trial.user_attrs.get(PROGRESS, {})
    return {**reported.get("curve", [{}])[-1], **reported}


def architecture_of(trial: FrozenTrial | Trial) -> Architecture:
    return Architecture.from_dict(trial.user_attrs["architecture"])


@dataclass
class Record:
    """A study, its space, and the trials that this driver has running."""

    study: optuna.Study
    space: Space
    sampler: SamplerSettings
    seed: int
    max_retries: int
    token: str
    """Of the driver that writes; stands in every trial that it starts."""
    member: str | None = None
    """Of a family; its trials are told from those of the other members by it."""
    objectives: Objectives = field(default_factory=Objectives)
    rungs: Rungs = Rungs((), 2)
    own_pruner: bool = False
    """Whether the study's pruner, which the user gave, stops trials instead of the rungs."""
    sharing: Sharing | None = None
    """What is settled with other drivers, where there may be some."""
    live: dict[int, FrozenTrial] = field(default_factory=dict)
    """As they were when they were started."""
    anchors: Mapping[str, Architecture | None] = field(default_factory=dict)
    """Architectures to try before any proposal, by name."""
    zero_shot: Mapping[Architecture, float] = field(default_factory=dict)
    """KL before training, of those that were scored so."""
    allowed: Collection[Architecture] | None = None
    """Architectures that may be proposed; None: all."""
    failures_in_a_row: int = 0
    exhausted: bool = False

    def __post_init__(self) -> None:
        self._log = TrialLog(self.study)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those of the member, of all states or of these. Not to be changed."""
        return [
            trial
            for trial in self._log.trials(self._age())
            if trial.user_attrs.get(MEMBER) == self.member and (not states or trial.state in states)
        ]

    def _age(self) -> float:
        """Seconds after which what others wrote is read again."""
        if self.sharing is None or not self.sharing.shared:
            return math.inf
        return FRESH_SECONDS if self.live else 0.0

    def finished(self) -> int:
        """Architectures scored to the end or stopped early; failed ones do not count."""
        return len(self.trials(*FINISHED))

    # Before the trials

    def add_anchors(self) -> list[str]:
        """Have the anchors tried before any proposal; returns a line per anchor."""
        self.anchors = self.space.anchors()
        tried, late = self.tried(), self._has_proposed()
        lines = []
        for name, shape in self.anchors.items():
            shown = f"{name} {shape}" if shape else f"no {name} in the band"
            if shape and late and shape not in tried:
                shown += ", left out: the study was begun without it"
            lines.append(f"anchor: {shown}")
        return lines

    def _has_proposed(self) -> bool:
        """Whether a trial is there that is no anchor."""
        return any(ANCHOR not in trial.user_attrs for trial in self.trials())

    def _next_anchor(self) -> tuple[str, Architecture] | None:
        """The first anchor whose architecture no trial has tried yet; none after a proposal, so
        that a study goes on as it was begun, whatever its anchors were."""
        if self._has_proposed():
            return None
        tried = self.tried()
        for name, architecture in self.anchors.items():
            if architecture and architecture not in tried:
                return name, architecture
        return None

    def reclaim(self) -> int:
        """Take up again the trials that dead drivers left running; returns how many.

        One that was interrupted more than `max_retries` times is given up as failed.
        """
        with self._alone():
            self._log.read()
            left = [
                trial
                for trial in self.trials(TrialState.RUNNING)
                if trial.number not in self.live and self._is_abandoned(trial)
            ]
            reason = "interrupted: the driver was gone"
            return sum([self._requeue(trial, reason, counted=True) for trial in left])

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        own = trial.user_attrs.get(DRIVER) == self.token  # was written, and not noted: a break
        return own or self.sharing is None or bool(self.sharing.abandoned([trial]))

    def release(self) -> None:
        """Put back what this driver has running, so that none stays RUNNING."""
        numbers = set(self.live)
        self.live.clear()
        self._log.read()  # an interruption may have come between a write and its note in the log
        for trial in self.trials(TrialState.RUNNING):
            if trial.number in numbers or trial.user_attrs.get(DRIVER) == self.token:
                self._requeue(trial, "interrupted: the driver was stopped", counted=False)

    def lost(self, number: int, reason: str, counted: bool = True) -> bool:
        """A worker died over a running trial: put it back; False where it is given up.

        One that is not `counted` is put back however often that was.
        """
        del self.live[number]
        (trial,) = [t for t in self.trials(TrialState.RUNNING) if t.number == number]
        again = self._requeue(trial, reason, counted)
        self.failures_in_a_row += not again
        return again

    def _requeue(self, trial: FrozenTrial, reason: str, counted: bool) -> bool:
        interruptions = trial.user_attrs.get("interruptions", 0) + counted
        again = interruptions <= self.max_retries and "architecture" in trial.user_attrs
        # The continuation first: a driver killed between the two steps loses nothing.
        if again and not any(t.user_attrs.get(CONTINUES) == trial.number for t in self.trials()):
            kept = {k: v for k, v in trial.user_attrs.items() if k not in NOT_CONTINUED}
            kept |= {ORIGIN: origin_of(trial), CONTINUES: trial.number}
            self._log.add(
                create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={**kept, "interruptions": interruptions},
                    intermediate_values=trial.intermediate_values,
                )
            )
        self._log.write(trial.number, {"error": reason})
        self._log.end(trial.number, state=TrialState.FAIL)
        return again

    # During the trials

    def tried(self) -> set[Architecture]:
        """Architectures that must not be proposed again, whatever became of them."""
        return {architecture_of(t) for t in self.trials() if "architecture" in t.user_attrs}

    def observations(self) -> list[Observation]:
        """What is known of every architecture tried, in the order of their origins."""
        by_origin = {origin_of(t): t for t in sorted(self.trials(), key=lambda t: t.number)}
        return [
            self._observation(trial)
            for _, trial in sorted(by_origin.items())
            if "architecture" in trial.user_attrs
        ]

    def _observation(self, trial: FrozenTrial) -> Observation:
        states = {
            TrialState.COMPLETE: FINISHED_RUN,
            TrialState.PRUNED: STOPPED,
            TrialState.FAIL: FAILED,
        }
        curve = progress_of(trial).get("curve", [])
        shape = architecture_of(trial)
        values: Sequence[float] | None = trial.values
        if values is None and self.objectives.several:  # costs are known before the end
            unknown = dict.fromkeys(self.objectives.tasks, math.nan)
            costs = self.space.costs.costs(shape, self.objectives.costs)
            values = self.objectives.values(math.nan, costs | unknown)
        return Observation(
            architecture=shape,
            curve=tuple((p["tokens"], p["kl"]) for p in curve if math.isfinite(p["kl"])),
            values=None if values is None else self.objectives.minimised(values),
            state=states.get(trial.state, RUNNING),
        )

    def _propose(self) -> Architecture | None:
        return propose(
            self.space,
            self.observations(),
            self.sampler,
            self.seed,
            zero_shot=self.zero_shot,
            allowed=self.allowed,
        )

    def next_trial(self, target: int | None = None) -> FrozenTrial | None:
        """Start the next waiting trial, or a new proposal.

        None when the space is exhausted, or when as many as make `target` with the finished ones
        are running already, those of other drivers included.
        """
        with self._alone():
            if math.isfinite(self._age()):
                self.reclaim()  # of drivers that died since
            if target is not None and self.open_places(target) <= 0:
                return None
            trial = self._next_waiting() or self._next_new()
        if trial is None:
            return None
        self.live[trial.number] = trial
        if self._is_surplus(trial.number, target):
            self._log.write(trial.number, {"error": "withdrawn: another driver was faster"})
            self._end(trial.number, state=TrialState.FAIL)
            return None
        return trial

    def _is_surplus(self, number: int, target: int | None) -> bool:
        """Whether a trial was started in vain, since the connection broke that kept others out."""
        if self.sharing is None or not self.sharing.shared or target is None:
            return False
        return self.sharing.surplus(number, target)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Inside, no other driver starts a trial, so that none is started twice."""
        return contextlib.nullcontext() if self.sharing is None else self.sharing.alone()

    def open_places(self, target: int) -> int:
        """How many more trials may be started so that `target` finish."""
        trials = self.trials()
        if self.sharing is not None:
            return self.sharing.open_places(trials, target)
        begun = [t for t in trials if t.state in FINISHED or t.number in self.live]
        return target - len(begun)

    def _next_new(self) -> FrozenTrial | None:
        anchor = self._next_anchor()
        shape = anchor[1] if anchor else self._propose()
        if shape is None:
            self.exhausted = True
            return None
        return self._start(shape, {ANCHOR: anchor[0]} if anchor else {})

    def _next_waiting(self) -> FrozenTrial | None:
        """Take up the first trial that waits: one that was interrupted."""
        for waiting in self.trials(TrialState.WAITING):
            if self.sharing is not None and not self.sharing.claim(f"trial {waiting.number}"):
                continue
            if trial := self._log.run(waiting, DRIVER, self.token):
                return trial
        return None

    def _start(self, architecture: Architecture, attributes: dict[str, Any]) -> FrozenTrial:
        """A new running trial, in one transaction."""
        if architecture in self.zero_shot:
            attributes = {**attributes, ZERO_SHOT: self.zero_shot[architecture]}
        if self.member is not None:
            attributes = {**attributes, MEMBER: self.member}
        new = create_trial(
            state=TrialState.RUNNING,
            params=self.space.params(architecture),
            distributions=self.space.distributions(),
            user_attrs={
                "architecture": architecture.to_dict(),
                "parameters": self.space.parameters_of[architecture],
                DRIVER: self.token,
                **attributes,
            },
        )
        return self._log.add(new)

    def report(self, number: int, result: dict[str, Any]) -> bool:
        """Record what a running trial reported; True when it shall stop.

        One transaction, however many trials there are.
        """
        names = ("tokens", "resumed_tokens", "seconds", "busy_seconds", "curve")
        curve = {p["tokens"]: p["kl"] for p in result["curve"] if math.isfinite(p["kl"])}
        progress = {name: result[name] for name in names}
        # Optuna takes no intermediate values of several objectives.
        self._log.write(number, {PROGRESS: progress}, None if self.objectives.several else curve)
        last = result["curve"][-1]
        return math.isfinite(last["kl"]) and self._stops(number, last["tokens"], last["kl"])

    def _stops(self, number: int, tokens: int, kl: float) -> bool:
        trial = self.live[number]
        if trial.user_attrs.get(ANCHOR) == UNIFORM:  # what every winner is held against
            return False
        if self.own_pruner:
            return Trial(self.study, trial._trial_id).should_prune()
        origin = origin_of(trial)
        if not self.rungs.applies(origin, tokens):
            return False
        others = [
            point["kl"]
            for other, rival in latest_by_origin(self.trials()).items()
            if other != origin
            for point in rival.user_attrs.get(PROGRESS, {}).get("curve", [])
            if point["tokens"] == tokens and math.isfinite(point["kl"])
        ]
        return self.rungs.stops(kl, others)

    def complete(
        self,
        number: int,
        kl: float,
        sequences: Sequence[float] = (),
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """A trial came to its end; a KL that is not finite fails it.

        `sequences` are the KLs of each sequence, `scores` those of tasks, by objective.
        """
        if not math.isfinite(kl):
            self.fail(number, f"the selection KL is {kl}")
            return
        shape = architecture_of(self.live[number])
        costs = self.space.costs.costs(shape, self.objectives.costs)
        values = self.objectives.values(kl, {**costs, **(scores or {})})
        self._log.write(number, {SEQUENCES: list(sequences), **self._shown(number)})
        self._end(number, values)
        self.failures_in_a_row = 0

    def stop_early(self, number: int) -> None:
        self._log.write(number, self._shown(number))
        self._end(number, state=TrialState.PRUNED)
        self.failures_in_a_row = 0

    def _shown(self, number: int) -> dict[str, Any]:
        reported = progress_of(self._log.trial(number))
        return {name: reported[name] for name in SHOWN if name in reported}

    def _end(
        self, number: int, values: Sequence[float] | None = None, state: TrialState | None = None
    ) -> None:
        """Once it has ended, it is not this driver's any more."""
        self._log.end(number, values, state)
        del self.live[number]

    def fail(self, number: int, reason: str) -> None:
        self._log.write(number, {"error": reason})
        self._end(number, state=TrialState.FAIL)
        self.failures_in_a_row += 1

    # After the trials

    def ranked(self) -> list[FrozenTrial]:
        """Scored trials, best selection KL first; those stopped early come after all others."""
        scored = [t for t in latest_by_origin(self.trials()).values() if t.state in FINISHED]
        return sorted(
            scored,
            key=lambda t: (
                t.state != TrialState.COMPLETE,
                -progress_of(t).get("tokens", 0),
                progress_of(t).get("kl", math.inf),
                origin_of(t),
            ),
        )
