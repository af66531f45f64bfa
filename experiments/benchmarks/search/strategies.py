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
    limit: float = 0.125
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
        for reduction, part in ((2, 32), (2, 8), (4, 32))
    )
    hyperband = Strategy(f"{name}, hyperband 2, from 1/32", settings, HYPERBAND, 2, 32)
    return (Strategy(f"{name}, no stopping", settings), *halving, hyperband)


def _variants() -> tuple[Strategy, ...]:
    """What early-stopped candidates and zero-shot scores teach; and the other samplers."""
    found = []
    stopper = (HALVING, 2, 8)
    for name in ("surrogate", "tpe"):
        base = f"{name}, halving 2, from 1/8"
        found += [
            Strategy(f"{base}, stopped: {learn}", _sampler(name, learn=learn), *stopper)
            for learn in (("ignored",) if name == "surrogate" else ("pruned", "ignored"))
        ]
        found += [
            Strategy(f"{base}, 32 scored: {use}", _sampler(name, zero_shot=use), *stopper, 32)
            for use in ("feature", "startup", "observations")[name == "tpe" :]
        ]
        found.append(Strategy(f"{base}, anchors first", _sampler(name), *stopper, anchors=True))
    found += [
        Strategy("nsga2, halving 2, from 1/8", _sampler("nsga2", startup=8), *stopper),
        Strategy("grid, halving 2, from 1/8", _sampler("grid"), *stopper),
        Strategy("gp, halving 2, from 1/8", _sampler("gp"), *stopper, limit=0.0625),
    ]
    return tuple(found)


STRATEGIES = (
    *BASELINES,
    *_stoppers("random")[1:],
    *_stoppers("tpe"),
    *_stoppers("surrogate"),
    *_variants(),
)
