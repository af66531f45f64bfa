"""Which sampler proposes: its settings, the rule behind `auto`, and a user's own sampler."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler

from search.errors import require
from search.imports import is_import_path, made_from

SURROGATE = "surrogate"
"""Name of our own sampler."""
OPTUNA = ("tpe", "gp", "nsga2")
"""Names of Optuna's."""
NAMES = ("auto", SURROGATE, *OPTUNA, "random", "grid")
"""All names that --sampler.name takes, besides import paths."""
LEARN = ("predicted", "pruned", "ignored")
"""What early-stopped candidates may teach."""
ZERO_SHOT = ("feature", "startup", "observations", "ignored")
"""How the KL before training may be used."""

LARGEST_FIT = 300
"""Observations up to which the surrogate's process is fitted in a fraction of a second."""


@dataclass(frozen=True)
class SamplerSettings:
    """How the next candidate is chosen from those seen so far."""

    name: str = "auto"
    """auto, surrogate (a Gaussian process over all feasible architectures), tpe, gp, nsga2, random,
    grid (all, spread out), or your own Optuna sampler as package.module:Name. Auto takes surrogate,
    and tpe (with several objectives: nsga2) for searches of over 300 trials."""
    learn: str = "predicted"
    """What a candidate that was stopped early teaches: predicted (its final scores, extrapolated
    from its last rung), pruned (its KL so far; only tpe understands it), or ignored."""
    startup: int = 4
    """Candidates drawn before the sampler models their scores."""
    zero_shot: str = "feature"
    """What the KL before training teaches, where it was measured: feature (surrogate models the
    score as depending on it; other samplers: as startup), startup (the first candidates are drawn
    from the better half), observations (extrapolated to a score while few are known), or
    ignored."""

    def __post_init__(self) -> None:
        require(
            self.name in NAMES or is_import_path(self.name),
            f"--sampler.name is {self.name!r}; it must be one of {', '.join(NAMES)}, or your own "
            "sampler as package.module:Name",
        )
        for name, known in (("learn", LEARN), ("zero_shot", ZERO_SHOT)):
            value = getattr(self, name)
            require(
                value in known,
                f"--sampler.{name} is {value!r}; it must be one of {', '.join(known)}",
            )
        require(self.startup >= 1, f"--sampler.startup is {self.startup}; it must be at least 1")


def chosen_name(name: str, trials: int, *, objectives: int) -> str:
    """The sampler that `auto` stands for after so many trials.

    The surrogate, which in the replays of experiments/benchmarks/search/replay.py takes half of
    TPE's tokens to the same regret; and what needs no process once there are too many trials.
    """
    if name != "auto":
        return name
    if trials <= LARGEST_FIT:
        return SURROGATE
    return "tpe" if objectives == 1 else "nsga2"


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
        return made_from(name, BaseSampler, setting="--sampler.name", seed=seed)


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Inside, Optuna logs errors only; its warnings are about settings that are not the user's."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
