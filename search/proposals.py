"""What to try next: a sampler's proposal, moved to the nearest architecture that may be tried.

The sampler (Optuna's TPE, say) sees every architecture scored so far and proposes a point of the
whole grid; the nearest feasible architecture that was not tried yet is taken. So each proposal is
inside the budget, none comes twice, and finding one always ends.
"""

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pruning import Architecture
from search.halving import latest_by_origin
from search.space import Space

STARTUP_TRIALS = 8
"""Scored architectures before TPE models them; until then proposals are drawn evenly."""


def propose(
    space: Space,
    trials: Sequence[FrozenTrial],
    tried: set[Architecture],
    sampler: str,
    seed: int,
) -> Architecture | None:
    """The next architecture, or None when all feasible ones were tried.

    Depends only on the record and the seed, not on interruptions: the sampler sees one trial per
    origin, in the order of the origins, and is seeded by `seed` and the architectures tried.
    """
    untried = np.array([a not in tried for a in space.feasible])
    if not untried.any():
        return None
    indices = np.flatnonzero(untried)
    generator = np.random.default_rng([seed, len(tried)])
    scored = [
        trial
        for trial in latest_by_origin(list(trials)).values()
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    if sampler == "random" or len(scored) < STARTUP_TRIALS:
        return space.feasible[int(generator.choice(indices))]
    point = _tpe_point(space, list(latest_by_origin(list(trials)).values()), generator)
    gaps = space.positions[indices] - np.array(point)
    return space.feasible[int(indices[(gaps**2).sum(1).argmin()])]


def _tpe_point(
    space: Space, trials: list[FrozenTrial], generator: np.random.Generator
) -> list[float]:
    """TPE's proposal on the axes, scaled to [0, 1]."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        view = optuna.create_study(
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=0, multivariate=True, seed=int(generator.integers(2**31))
            )
        )
        distributions = space.distributions()
        for trial in trials:
            if trial.state == TrialState.WAITING or trial.params.keys() != distributions.keys():
                continue
            view.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    params=trial.params,
                    distributions=distributions,
                    value=trial.value,
                    intermediate_values=trial.intermediate_values,
                )
            )
        params = view.ask(distributions).params
    finally:
        optuna.logging.set_verbosity(verbosity)
    return space.position(space.architecture(params))
