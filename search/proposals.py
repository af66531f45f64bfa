"""What to try next: a sampler's proposal among the architectures that may be tried.

The sampler sees every candidate so far. Optuna's samplers propose a point of the whole grid, and
the nearest feasible architecture that was not tried yet is taken; the surrogate chooses among those
directly. So each proposal is inside the budget, none comes twice, and finding one always ends.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from pruning import Architecture
from search.prediction import Run, Score, predicted_scores
from search.samplers import SURROGATE, SamplerSettings, chosen_name, make_sampler, optuna_quiet
from search.space import Space
from search.surrogate import best_expected

FINISHED, STOPPED, RUNNING, FAILED = "finished", "stopped", "running", "failed"
STATES = {
    FINISHED: TrialState.COMPLETE,
    STOPPED: TrialState.PRUNED,
    RUNNING: TrialState.RUNNING,
    FAILED: TrialState.FAIL,
}
REAL = 16
"""Finished candidates from which on zero-shot scores are no observations any more."""
LARGEST_DISTANCES = 2**24
"""Distances that are held at once."""


@dataclass(frozen=True)
class Observation:
    """What is known of a candidate that was started."""

    architecture: Architecture
    curve: tuple[tuple[int, float], ...]
    """(tokens, KL) of each measurement so far."""
    values: tuple[float, ...] | None
    """The objectives, minimised, of one that ran to its end. Of others None, or what is known
    already, with NaN for what only the end shows."""
    state: str
    """finished, stopped, running or failed."""


@dataclass(frozen=True)
class Scored:
    """An observation as a sampler sees it: its objectives known or predicted, or none."""

    observation: Observation
    values: tuple[float, ...] | None
    spread: float
    """Standard deviation of the log of the first objective that was predicted; 0 where none was."""


def propose(
    space: Space,
    observations: Sequence[Observation],
    settings: SamplerSettings,
    seed: int,
    zero_shot: Mapping[Architecture, float] | None = None,
    allowed: Collection[Architecture] | None = None,
) -> Architecture | None:
    """The next architecture, or None when all that are feasible and allowed were tried.

    Depends on the observations and the seed alone. `zero_shot` gives the KL before training of
    those where it was measured, started or not; `allowed` narrows the space.
    """
    zero_shot = zero_shot or {}
    tried = {observation.architecture for observation in observations}
    inside = None if allowed is None else set(allowed)
    choosable = [
        n
        for n, shape in enumerate(space.feasible)
        if shape not in tried and (inside is None or shape in inside)
    ]
    if not choosable:
        return None
    indices = np.array(choosable)
    generator = np.random.default_rng([seed, len(observations)])
    if settings.name == "grid":
        return space.feasible[int(indices[_furthest(space, indices, tried)])]
    if settings.name == "random":
        return space.feasible[int(generator.choice(indices))]
    scored = scored_observations(observations, settings, zero_shot)
    taught = [s for s in scored if s.values is not None and s.observation.state != RUNNING]
    real = [s for s in taught if s.observation.architecture in tried]
    if len(real) < settings.startup:
        return space.feasible[int(generator.choice(_startup(space, indices, settings, zero_shot)))]
    objectives = len(taught[0].values or ())
    name = chosen_name(settings.name, len(observations), objectives)
    if name == SURROGATE:
        used = zero_shot if settings.zero_shot == "feature" else {}
        return best_expected(space, indices, scored, used, generator)
    sampler = make_sampler(name, int(generator.integers(2**31)), max(4, settings.startup))
    point = _proposed_point(space, scored, sampler, objectives, settings)
    gaps = space.positions[indices] - np.array(point)
    return space.feasible[int(indices[(gaps**2).sum(1).argmin()])]


def scored_observations(
    observations: Sequence[Observation],
    settings: SamplerSettings,
    zero_shot: Mapping[Architecture, float],
) -> list[Scored]:
    """Every observation that teaches something, with its objectives known or predicted.

    While few candidates are finished, and where the settings ask for it, those of which only the
    KL before training is known come with them, as stopped before the first token.
    """
    entries = [o for o in observations if o.state != FAILED]
    finished = sum(o.state == FINISHED for o in entries)
    if settings.zero_shot == "observations" and finished < REAL:
        tried = {observation.architecture for observation in observations}
        entries += [
            Observation(shape, ((0, kl),), None, STOPPED)
            for shape, kl in zero_shot.items()
            if shape not in tried
        ]
    lengths = [len(o.values) for o in entries if o.state == FINISHED and o.values is not None]
    objectives = lengths[0] if lengths else 1
    predicted = [
        _with_predictions(entries, index, settings, zero_shot) for index in range(objectives)
    ]
    scored = []
    for entry, *scores in zip(entries, *predicted, strict=True):
        found = [score for score in scores if score is not None]
        known = len(found) == objectives
        scored.append(
            Scored(
                entry,
                tuple(score.value for score in found) if known else None,
                max((score.spread for score in found), default=0.0),
            )
        )
    return scored


def _with_predictions(
    entries: list[Observation],
    index: int,
    settings: SamplerSettings,
    zero_shot: Mapping[Architecture, float],
) -> list[Score | None]:
    """One objective of every entry: known, predicted (where the settings ask for it), or none."""
    known = [None if o.values is None else _finite(o.values[index]) for o in entries]
    if settings.learn != "predicted" and settings.zero_shot != "observations":
        return [None if value is None else Score(value, 0.0) for value in known]
    runs = []
    for entry, value in zip(entries, known, strict=True):
        curve = {tokens: kl for tokens, kl in entry.curve if math.isfinite(kl) and kl > 0}
        if entry.architecture in zero_shot:
            curve[0] = zero_shot[entry.architecture]
        if settings.learn != "predicted" and max(curve, default=0) > 0 and value is None:
            curve = {}
        runs.append(Run(curve, value))
    return predicted_scores(runs)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _startup(
    space: Space,
    indices: NDArray[np.int64],
    settings: SamplerSettings,
    zero_shot: Mapping[Architecture, float],
) -> NDArray[np.int64]:
    """What the first candidates are drawn from: the better half before training, where known."""
    known = [n for n in indices if space.feasible[n] in zero_shot]
    if settings.zero_shot == "ignored" or len(known) < 2:
        return indices
    known.sort(key=lambda n: zero_shot[space.feasible[n]])
    return np.array(known[: (len(known) + 1) // 2])


def _furthest(space: Space, indices: NDArray[np.int64], tried: Collection[Architecture]) -> int:
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


def _proposed_point(
    space: Space,
    scored: Sequence[Scored],
    sampler: BaseSampler,
    objectives: int,
    settings: SamplerSettings,
) -> list[float]:
    """An Optuna sampler's proposal on the axes, scaled to [0, 1].

    It sees a study in memory that holds the observations and nothing else, so a sampler that keeps
    a state of its own elsewhere starts afresh at each proposal.
    """
    with optuna_quiet():
        view = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        trials = [_trial(space, entry, objectives, settings.learn) for entry in scored]
        view.add_trials(_in_generations([t for t in trials if t is not None], sampler))
        params = view.ask(space.distributions()).params
    return space.position(space.architecture(params))


def _trial(space: Space, scored: Scored, objectives: int, learn: str) -> FrozenTrial | None:
    """A candidate as Optuna sees it; None for one that is not to teach or cannot be described."""
    observation = scored.observation
    state = STATES[observation.state]
    if scored.values is not None and state != TrialState.RUNNING:
        state = TrialState.COMPLETE
    if state == TrialState.PRUNED:
        trained = any(tokens > 0 for tokens, _ in observation.curve)
        if learn == "ignored" or objectives > 1 or not trained:
            return None
    return create_trial(
        state=state,
        params=space.params(observation.architecture),
        distributions=space.distributions(),
        values=scored.values if state == TrialState.COMPLETE else None,
        intermediate_values=dict(observation.curve) if state == TrialState.PRUNED else None,
    )


def _in_generations(trials: list[FrozenTrial], sampler: BaseSampler) -> list[FrozenTrial]:
    """The trials; for a genetic sampler each with the generation it would have had."""
    if not isinstance(sampler, BaseGASampler) or not sampler.population_size:
        return trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    for number, trial in enumerate(complete):
        generation = number // sampler.population_size
        trial.system_attrs = {sampler._get_generation_key(): generation}
    return trials
