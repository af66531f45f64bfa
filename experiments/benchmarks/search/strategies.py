"""The searches that are replayed: how candidates are chosen, and when they are stopped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from search.halving import HALVING, HYPERBAND, NEVER
from search.samplers import SamplerSettings

SAMPLER, BEST_BEFORE, LARGEST, UNIFORM = "sampler", "zero-shot", "parameters", "uniform shrink"
ALL = 10**9
"""More candidates than a table has."""


@dataclass(frozen=True)
class Strategy:
    """One way to search the table."""

    name: str
    settings: SamplerSettings = field(default_factory=SamplerSettings)
    stopper: str = NEVER
    reduction: int = 2
    first_part: int = 8
    """The first rung is after one part in so many of a run."""
    scored: int = 0
    """Candidates measured before training, drawn at random or, with `largest`, the largest."""
    largest: bool = False
    anchors: bool = False
    """Whether the shapes that a person would try come first, and are spared by the stopper."""
    order: str = SAMPLER
    """What ranks the candidates: the sampler, or an order known before any training."""
    limit: float = 0.25
    """Where the replay ends, as a share of the table's tokens."""

    def parts(self) -> dict[str, Any]:
        """What its replays depend on."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def _sampler(name: str, **settings: Any) -> SamplerSettings:
    return SamplerSettings(name=name, **settings)


RANDOM = Strategy("random, no stopping", _sampler("random"), limit=1.0)
"""What every other strategy is held against."""

BASELINES = (
    RANDOM,
    Strategy("grid, no stopping", _sampler("grid"), limit=1.0),
    Strategy("uniform shrink alone", order=UNIFORM),
    Strategy("largest parameter count first", order=LARGEST, limit=1.0),
    Strategy("best zero-shot first, all scored", order=BEST_BEFORE, scored=ALL, limit=1.0),
    Strategy("best zero-shot first, of the 64 largest", order=BEST_BEFORE, scored=64, largest=True),
)


def _stoppers(name: str) -> tuple[Strategy, ...]:
    """A sampler with every stopper."""
    settings = _sampler(name)
    halving = tuple(
        Strategy(f"{name}, halving {reduction}, from 1/{part}", settings, HALVING, reduction, part)
        for reduction in (2, 4)
        for part in (32, 16, 8, 4)
    )
    hyperband = tuple(
        Strategy(f"{name}, hyperband {reduction}, from 1/32", settings, HYPERBAND, reduction, 32)
        for reduction in (2, 4)
    )
    return (Strategy(f"{name}, no stopping", settings), *halving, *hyperband)


def _variants() -> tuple[Strategy, ...]:
    """What early-stopped candidates and zero-shot scores teach, with early and late rungs."""
    found = []
    for name in ("surrogate", "tpe"):
        for part in (32, 8):
            stopper = (HALVING, 2, part)
            base = f"{name}, halving 2, from 1/{part}"
            found += [
                Strategy(f"{base}, stopped: {learn}", _sampler(name, learn=learn), *stopper)
                for learn in (("ignored",) if name == "surrogate" else ("pruned", "ignored"))
            ]
            found += [
                Strategy(
                    f"{base}, {shown} scored: {use}", _sampler(name, zero_shot=use), *stopper, n
                )
                for use in ("feature", "startup", "observations")[name == "tpe" :]
                for n, shown in ((32, "32"), (ALL, "all"))
            ]
            found.append(Strategy(f"{base}, anchors first", _sampler(name), *stopper, anchors=True))
    found += [
        Strategy("gp, halving 2, from 1/32", _sampler("gp"), HALVING, 2, 32),
        Strategy("nsga2, halving 2, from 1/32", _sampler("nsga2", startup=8), HALVING, 2, 32),
        Strategy("grid, halving 2, from 1/32", _sampler("grid"), HALVING, 2, 32),
    ]
    return tuple(found)


STRATEGIES = (
    *BASELINES,
    *_stoppers("random")[1:],
    *_stoppers("tpe"),
    *_stoppers("surrogate"),
    *_variants(),
)
