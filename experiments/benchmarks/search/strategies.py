"""The searches that are replayed: how candidates are chosen, and when they are stopped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from search.halving import NEVER
from search.samplers import SamplerSettings

SAMPLER, BEST_BEFORE, LARGEST, UNIFORM = "sampler", "zero-shot", "parameters", "uniform shrink"


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
    """Candidates measured before training, drawn at random, before the search; -1: all."""
    anchors: bool = False
    """Whether the shapes that a person would try come first, and are spared by the stopper."""
    order: str = SAMPLER
    """What ranks the candidates: the sampler, or an order known before any training."""

    def fingerprint_parts(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "name"}
