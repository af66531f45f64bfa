"""Samplers by name, and what they learn from."""

from dataclasses import dataclass

from common.errors import require
from search.config.plugins import is_import_path

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
