"""Cut of a study's last stage to the time that is left of --time_budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.progress import duration
from search.config.names import EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT
from search.config.study import SearchConfig

SHARE_FOR_TRIALS = 0.5
"""Of the time that is left when the trials begin, which they have at least where the last stage as
it was asked for does not leave them more."""
MARGIN = 1.1
"""The last stage is planned to take so many times its estimate."""


@dataclass(frozen=True)
class LastStageCut:
    """A last stage that ends in time, as far as that can be told."""

    config: SearchConfig
    """The user's, with what is run of the last stage."""
    left_out: tuple[str, ...] = ()
    """What is not, in words; () where all is."""
    seconds: float = 0.0
    """What is run takes about so long."""

    @classmethod
    def of(
        cls,
        config: SearchConfig,
        left: float,
        *,
        step: int,
        seconds: Callable[[SearchConfig], float],
    ) -> "LastStageCut":
        """As much of it as ends in the seconds that are `left`, or the least that gives a winner.

        `step` are the tokens of an optimiser step; `seconds` gives the time of the last stage of a
        configuration. First go what the winner is compared by, then the rivals, and the length of
        its run last: where none longer than a trial fits, the student of the best trial wins.
        """
        left_out: list[str] = []
        needed = MARGIN * seconds(config)
        for words, changes in _cuts(config):
            if needed <= left:
                break
            less = replace(config, **changes)
            if (shorter := MARGIN * seconds(less)) < needed:
                config, needed = less, shorter
                left_out.append(words)
        if needed > left and config.full_tokens > config.short_tokens:
            config, needed = _shorter(config, left, step=step, seconds=seconds)
            left_out.append(f"training of the winner beyond {config.full_tokens:,} tokens")
        return cls(config, tuple(left_out), needed)

    def lines(self, left: float) -> Iterator[str]:
        """What is said of it."""
        if self.left_out:
            rest = (
                f"{duration(left)} of --time_budget are left"
                if left > 0
                else "--time_budget is over"
            )
            yield (
                f"time: {rest}, and the last stage is cut to what there is time for; left out: "
                f"{', '.join(self.left_out)}; the same command again goes on with these"
            )
        if self.seconds > left:
            yield (
                f"warning: what is left to do takes about {duration(self.seconds)}, longer than "
                f"--time_budget {self.config.time_budget} allows; it is the least that gives a "
                "winner"
            )


def least_of(config: SearchConfig) -> SearchConfig:
    """With the least that gives a winner: the student of a trial, held against nothing."""
    for _, changes in _cuts(config):
        config = replace(config, **changes)
    return replace(config, full_tokens=config.short_tokens)


def _cuts(config: SearchConfig) -> Sequence[tuple[str, dict[str, Any]]]:
    """What can be left out, in words, and the settings without it; the least useful first."""
    cuts: list[tuple[str, dict[str, Any]]] = [
        ("further training seeds", {"seeds": 1, "finalist_seeds": 1}),
        ("the longer run from random weights", {"scratch_tokens": None}),
        ("candidates that tie with the winners", {"ties": 0}),
    ]
    if config.evidence == EVIDENCE_FULL:
        cuts.append(("full runs of the baselines", {"evidence": EVIDENCE_SHORT}))
    cuts.append((f"winners besides the first (of {config.winners})", {"winners": 1}))
    if config.evidence != EVIDENCE_NONE:
        cuts.append(("the baselines", {"evidence": EVIDENCE_NONE}))
    return cuts


def _shorter(
    config: SearchConfig, left: float, *, step: int, seconds: Callable[[SearchConfig], float]
) -> tuple[SearchConfig, float]:
    """With full runs as long as the time allows, in whole steps, and their seconds."""

    def needed(tokens: int) -> float:
        return MARGIN * seconds(replace(config, full_tokens=tokens))

    least = config.short_tokens
    fits, fails = 0, (config.full_tokens - least) // step + 1  # steps above it
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if needed(least + middle * step) <= left else (fits, middle)
    return replace(config, full_tokens=least + fits * step), needed(least + fits * step)
