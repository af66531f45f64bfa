"""Factory of samplers: Optuna's with their settings, and a user's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.samplers import BaseSampler

from search.config.plugins import made_from


def make_sampler(name: str, seed: int, *, population: int) -> BaseSampler:
    """Optuna's sampler of this name, or the user's; seeded where it takes a seed.

    `population` is that of nsga2. Raises SearchError for a sampler that cannot be imported.
    """
    seed %= 2**32  # as many seeds as Optuna's samplers know
    with optuna_quiet():
        if name == "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=0, multivariate=True, seed=seed)
        if name == "gp":
            return optuna.samplers.GPSampler(n_startup_trials=0, seed=seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
        sampler: BaseSampler = made_from(name, BaseSampler, setting="--sampler.name", seed=seed)
        return sampler


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Inside, Optuna logs errors only; its warnings are about settings that are not the user's."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
