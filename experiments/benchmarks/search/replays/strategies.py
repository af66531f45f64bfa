"""The searches that are replayed: how candidates are chosen, and when they are stopped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from search.config import HALVING, HYPERBAND, NEVER, SamplerSettings
from search.space import CUT_AXES, DEPTH, DEPTH_AND_WIDTH, UNIFORM

SAMPLER, BEST_BEFORE, LARGEST = "sampler", "zero-shot", "parameters"
LARGEST_WIDTH = "largest of full depth"
"""What most parameters are left of without a layer less, whatever its form."""
EIGHTH = 1 / 8
LIMITS = {"surrogate": 1 / 16, "gp": 1 / 16}
"""Where replays of slow samplers end: what they found until then is what they have after 1/8."""
Stopper = tuple[str, int, int]
"""Its name, reduction, and the part of a run after which the first rung comes."""
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
    anchors: tuple[str, ...] = ()
    """Names of the shapes that come first: anchors of the space, or `LARGEST_WIDTH`."""
    spared: tuple[str, ...] = ()
    """Which of them no stopper stops."""
    order: str = SAMPLER
    """What ranks the candidates: the sampler, or an order known before any training."""
    limit: float = EIGHTH
    """Where the replay ends, as a share of the table's tokens."""
    most_seeds: int = 10**9
    """Of a sampler that takes a second or more for a proposal."""

    def parts(self) -> dict[str, Any]:
        """What its replays depend on."""
        apart = ("name", "most_seeds")
        return {key: value for key, value in asdict(self).items() if key not in apart}


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
    settings, limit = _sampler(name), LIMITS.get(name, EIGHTH)
    stoppers: dict[str, Stopper] = {
        "no stopping": (NEVER, 2, 8),
        "halving 2, from 1/32": (HALVING, 2, 32),
        "halving 2, from 1/8": (HALVING, 2, 8),
        "halving 4, from 1/32": (HALVING, 4, 32),
        "hyperband 2, from 1/32": (HYPERBAND, 2, 32),
    }
    return tuple(
        Strategy(f"{name}, {shown}", settings, *stopper, limit=limit)
        for shown, stopper in stoppers.items()
    )


def _variants() -> tuple[Strategy, ...]:
    """What early-stopped candidates and zero-shot scores teach; and the other samplers."""
    found = []
    stopper: Stopper = (HALVING, 2, 8)
    for name in ("surrogate", "tpe"):
        base, limit = f"{name}, halving 2, from 1/8", LIMITS.get(name, EIGHTH)
        found += [
            Strategy(
                f"{base}, stopped: {learn}", _sampler(name, learn=learn), *stopper, limit=limit
            )
            for learn in (("ignored",) if name == "surrogate" else ("pruned", "ignored"))
        ]
    base, limit = "surrogate, halving 2, from 1/8", LIMITS["surrogate"]
    found += [
        Strategy(
            f"{base}, 32 scored: {use}",
            _sampler("surrogate", zero_shot=use),
            *stopper,
            32,
            limit=limit,
        )
        for use in ("feature", "startup", "observations")
    ]
    found += _anchored(base, stopper, limit)
    found += [
        Strategy("nsga2, halving 2, from 1/8", _sampler("nsga2", startup=8), *stopper),
        Strategy("grid, halving 2, from 1/8", _sampler("grid"), *stopper),
        Strategy(
            "gp, halving 2, from 1/8", _sampler("gp"), *stopper, limit=LIMITS["gp"], most_seeds=10
        ),
    ]
    return tuple(found)


def _anchored(base: str, stopper: Stopper, limit: float) -> list[Strategy]:
    """The default with shapes that come before any proposal."""
    before = (UNIFORM, LARGEST_WIDTH, DEPTH)
    sets = {
        "anchors first": (tuple(CUT_AXES), (UNIFORM,)),
        "anchors first, none can be stopped": (tuple(CUT_AXES), tuple(CUT_AXES)),
        "anchors first, without FFN and heads": ((UNIFORM, DEPTH_AND_WIDTH, DEPTH), (UNIFORM,)),
        "uniform shrink first": ((UNIFORM,), (UNIFORM,)),
        "uniform shrink and largest first, the latter can be stopped": (before, (UNIFORM,)),
        "uniform shrink and largest first": (before, before),
    }
    return [
        Strategy(
            f"{base}, {name}",
            _sampler("surrogate"),
            *stopper,
            anchors=anchors,
            spared=spared,
            limit=limit,
        )
        for name, (anchors, spared) in sets.items()
    ]


STRATEGIES = (
    *BASELINES,
    *_stoppers("random")[1:],
    *_stoppers("tpe"),
    *_stoppers("surrogate"),
    *_variants(),
)
