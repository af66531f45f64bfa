"""Proposals: the sampler's next architecture among those that may be tried.

The sampler sees every candidate so far. Optuna's samplers propose a point of the whole grid, and
the nearest feasible architecture that was not tried yet is taken; the surrogate chooses among those
directly. So each proposal is inside the budget, none comes twice, and finding one always ends.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from pruning import Architecture
from search.config.sampler import SURROGATE, SamplerSettings, chosen_name
from search.database.optuna_internals import put_in_generation
from search.samplers.extrapolation import PartialCurve, Prediction, predicted_scores
from search.samplers.factory import make_sampler, optuna_quiet
from search.samplers.surrogate import best_expected
from search.space.space import Space
from search.study.distributions import distributions_of
from search.study.observation import FAILED, FINISHED, RUNNING, STATES, STOPPED, Observation, Scored

ZERO_SHOT_CUTOFF = 16
"""Number of finished trials from which zero-shot scores are no longer used as observations."""
LARGEST_DISTANCES = 2**24
"""Distances that are held at once."""


@dataclass(frozen=True)
class Proposer:
    """A sampler with all that it knows besides the observations."""

    space: Space
    """Architectures inside the budget."""
    settings: SamplerSettings
    """Which sampler proposes, and what it learns from."""
    seed: int
    """With the number of observations, the seed of each proposal."""
    zero_shot: Mapping[Architecture, float] = field(default_factory=dict)
    """KL before training of those where it was measured, started or not."""
    allowed: Collection[Architecture] | None = None
    """Architectures that may be proposed; None: all of the space."""

    def __call__(self, observations: Sequence[Observation]) -> Architecture | None:
        """The next architecture, or None when all that are feasible and allowed were tried.

        Depends on the observations and the seed alone. Architectures that are not of the space,
        such as those whose layers differ, teach nothing: they have no place on the axes.
        """
        inside = self.space.parameters_of
        observations = [o for o in observations if o.architecture in inside]
        space, settings, zero_shot = self.space, self.settings, self.zero_shot
        tried = {observation.architecture for observation in observations}
        choosable = self._choosable(tried)
        if not choosable:
            return None
        indices = np.array(choosable)
        generator = np.random.default_rng([self.seed, len(observations)])
        if settings.name == "grid":
            return space.feasible[int(indices[_furthest(space, indices, tried=tried)])]
        if settings.name == "random":
            return space.feasible[int(generator.choice(indices))]
        scored = self.scored(observations)
        taught = [s for s in scored if s.values is not None and s.observation.state != RUNNING]
        trained = [s for s in taught if s.observation.architecture in tried]
        if len(trained) < settings.startup:
            return space.feasible[int(generator.choice(self._startup(indices)))]
        objectives = len(taught[0].values or ())
        name = chosen_name(settings.name, len(observations), objectives=objectives)
        if name == SURROGATE:
            used = zero_shot if settings.zero_shot == "feature" else {}
            return best_expected(space, indices, scored=scored, zero_shot=used, generator=generator)
        sampler = make_sampler(
            name, int(generator.integers(2**31)), population=max(4, settings.startup)
        )
        point = self._proposed_point(scored, sampler, objectives=objectives)
        gaps = space.positions[indices] - np.array(point)
        return space.feasible[int(indices[(gaps**2).sum(1).argmin()])]

    def _choosable(self, tried: Collection[Architecture]) -> list[int]:
        """Indices in the space of what may be tried."""
        inside = None if self.allowed is None else set(self.allowed)
        return [
            n
            for n, shape in enumerate(self.space.feasible)
            if shape not in tried and (inside is None or shape in inside)
        ]

    def scored(self, observations: Sequence[Observation]) -> list[Scored]:
        """Every observation that teaches something, with its objectives known or predicted.

        While few candidates are finished, and where the settings ask for it, those of which only
        the KL before training is known come with them, as stopped before the first token.
        """
        entries = [o for o in observations if o.state != FAILED]
        finished = sum(o.state == FINISHED for o in entries)
        if self.settings.zero_shot == "observations" and finished < ZERO_SHOT_CUTOFF:
            tried = {observation.architecture for observation in observations}
            entries += [
                Observation(shape, ((0, kl),), None, STOPPED)
                for shape, kl in self.zero_shot.items()
                if shape not in tried
            ]
        lengths = [len(o.values) for o in entries if o.state == FINISHED and o.values is not None]
        objectives = lengths[0] if lengths else 1
        predicted = [self._with_predictions(entries, index) for index in range(objectives)]
        scored = []
        for entry, *scores in zip(entries, *predicted, strict=True):
            known = [score for score in scores if score is not None]
            scored.append(
                Scored(
                    entry,
                    tuple(score.value for score in known) if len(known) == objectives else None,
                    max((score.spread for score in known), default=0.0),
                )
            )
        return scored

    def _with_predictions(
        self, entries: Sequence[Observation], index: int
    ) -> list[Prediction | None]:
        """One objective of every entry: known, predicted (where the settings ask for it), or
        none."""
        settings = self.settings
        known = [None if o.values is None else _finite(o.values[index]) for o in entries]
        if settings.learn != "predicted" and settings.zero_shot != "observations":
            return [None if value is None else Prediction(value, 0.0) for value in known]
        curves = []
        for entry, value in zip(entries, known, strict=True):
            curve = {tokens: kl for tokens, kl in entry.curve if math.isfinite(kl) and kl > 0}
            if entry.architecture in self.zero_shot:
                curve[0] = self.zero_shot[entry.architecture]
            if settings.learn != "predicted" and max(curve, default=0) > 0 and value is None:
                curve = {}
            curves.append(PartialCurve(curve, value))
        return predicted_scores(curves)

    def _startup(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the first candidates are drawn from: the better half before training, where
        known."""
        feasible, zero_shot = self.space.feasible, self.zero_shot
        known = [n for n in indices if feasible[n] in zero_shot]
        if self.settings.zero_shot == "ignored" or len(known) < 2:
            return indices
        known.sort(key=lambda n: zero_shot[feasible[n]])
        return np.array(known[: (len(known) + 1) // 2])

    def _proposed_point(
        self, scored: Sequence[Scored], sampler: BaseSampler, *, objectives: int
    ) -> list[float]:
        """An Optuna sampler's proposal on the axes, scaled to [0, 1].

        It sees a study in memory that holds the observations and nothing else, so a sampler that
        keeps a state of its own elsewhere starts afresh at each proposal.
        """
        space = self.space
        with optuna_quiet():
            view = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
            trials = [self._trial(entry, objectives) for entry in scored]
            view.add_trials(_in_generations([t for t in trials if t is not None], sampler))
            params = view.ask(distributions_of(space)).params
        return space.position(space.architecture(params))

    def _trial(self, scored: Scored, objectives: int) -> FrozenTrial | None:
        """A candidate as Optuna sees it; None for one that is not to teach or cannot be
        described."""
        observation = scored.observation
        state = STATES[observation.state]
        if scored.values is not None and state != TrialState.RUNNING:
            state = TrialState.COMPLETE
        if state == TrialState.PRUNED:
            trained = any(tokens > 0 for tokens, _ in observation.curve)
            if self.settings.learn == "ignored" or objectives > 1 or not trained:
                return None
        return create_trial(
            state=state,
            params=self.space.params(observation.architecture),
            distributions=distributions_of(self.space),
            values=scored.values if state == TrialState.COMPLETE else None,
            intermediate_values=dict(observation.curve) if state == TrialState.PRUNED else None,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _furthest(space: Space, indices: NDArray[np.int64], *, tried: Collection[Architecture]) -> int:
    """Which of `indices` lies furthest from all that were tried; the middle one at first."""
    positions = space.positions[indices]
    places = [space.position(shape) for shape in space.feasible if shape in tried]
    if not places:
        return int(((positions - positions.mean(0)) ** 2).sum(1).argmin())
    nearest = np.full(len(indices), np.inf)
    step = max(1, LARGEST_DISTANCES // (positions.size or 1))
    for first in range(0, len(places), step):
        gaps = positions[:, None] - np.array(places[first : first + step])[None]
        nearest = np.minimum(nearest, (gaps**2).sum(2).min(1))
    return int(nearest.argmax())


def _in_generations(trials: list[FrozenTrial], sampler: BaseSampler) -> list[FrozenTrial]:
    """The trials; for a genetic sampler each with the generation it would have had."""
    if not isinstance(sampler, BaseGASampler) or not sampler.population_size:
        return trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    for number, trial in enumerate(complete):
        put_in_generation(trial, sampler, generation=number // sampler.population_size)
    return trials
