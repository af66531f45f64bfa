"""What the winner is held against, and what the figures allow to be said of it in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from pruning import Architecture
from search.config import EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT
from search.finals import FullPlan, load_result
from search.record import Record
from search.results import Measured
from search.selection import (
    CANDIDATE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
    UNIFORM,
    Contest,
)
from search.statistics import Interval, difference_interval, mean_interval
from search.trial_facts import FINISHED

WINNER = "winner"
RUNNER_UP = "runner-up"
FEW_TRIALS = 8
"""Trials below which a search has hardly begun."""
NAMED = {
    UNIFORM: "the uniform shrink",
    RANDOM_ARCHITECTURE: "the random architecture",
    RANDOM_INITIALISATION: "the same shape from random weights",
    RUNNER_UP: "the runner-up",
}
ITSELF = {
    UNIFORM: "the winner is the uniform shrink: nothing that the search proposed came out better "
    "on the selection split",
    RANDOM_ARCHITECTURE: "the winner is the random architecture, which the search did not choose: "
    "on the selection split it is better than every candidate",
    RANDOM_INITIALISATION: "the winner was trained from random weights: on the selection split it "
    "is better than every student that was cut from the teacher",
}

PerSequence = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The winner against everything that it is held against."""

    contest: Contest
    winners: list[Measured]
    baselines: dict[str, Measured]
    """Those that were distilled in full."""
    full: dict[str, Interval]
    """Differences of test KL, winner minus the other, paired; negative: the winner is better."""
    short_kl: dict[str, PerSequence]
    """After the short run, selection KL of each sequence: of the winner's architecture, and of the
    baselines that were not distilled in full."""

    @classmethod
    def of(
        cls,
        contest: Contest,
        winners: list[Measured],
        baselines: dict[str, Measured],
        plan: FullPlan,
    ) -> "Comparison":
        """With the runner-up only where the winners are rivals, not trade-offs of objectives."""
        best = winners[0]
        others = {name: other for name, other in baselines.items() if other is not best}
        if len(winners) > 1 and not contest.along_a_front:
            others[RUNNER_UP] = winners[1]
        full = {
            name: difference_interval([e.kl for e in best.test], [e.kl for e in other.test])
            for name, other in others.items()
        }
        return cls(contest, winners, baselines, full, _short_kls(contest, best, baselines, plan))

    @property
    def short(self) -> dict[str, Interval]:
        """Differences of selection KL after the short run, paired; of one training seed."""
        kls = dict(self.short_kl)
        own = kls.pop(WINNER, None)
        if own is None:
            return {}
        return {name: difference_interval([own], [other]) for name, other in kls.items()}

    @property
    def winner_is(self) -> str | None:
        """The baseline that the winner is."""
        best = self.winners[0]
        if best.from_scratch:
            return RANDOM_INITIALISATION
        named = {
            self.contest.uniform: UNIFORM,
            self.contest.random: RANDOM_ARCHITECTURE,
        }
        return named.get(best.architecture)

    def to_dict(self) -> dict[str, Any]:
        """Differences after full runs; figures and differences after short ones."""
        short = {name: mean_interval([kl]).to_dict() for name, kl in self.short_kl.items()}
        return {
            "differences": {name: interval.to_dict() for name, interval in self.full.items()},
            "short": {
                "tokens": self.contest.stage.short_tokens,
                "selection_kl": short,
                "differences": {name: each.to_dict() for name, each in self.short.items()},
            },
        }


def short_kl(
    contest: Contest, role: str, shape: Architecture, plan: FullPlan
) -> PerSequence | None:
    """Selection KL of each sequence after a short run: of the trial that came to its end, or of a
    run that was made to be compared."""
    if role != RANDOM_INITIALISATION and shape in contest.scored:
        return contest.scored[shape]
    result = load_result(contest.short_run(role, shape), plan)
    return None if result is None else result.selection.kl


def _short_kls(
    contest: Contest, best: Measured, baselines: Mapping[str, Measured], plan: FullPlan
) -> dict[str, PerSequence]:
    if contest.stage.evidence != EVIDENCE_SHORT:
        return {}
    role = RANDOM_INITIALISATION if best.from_scratch else CANDIDATE
    wanted: dict[str, tuple[str, Architecture | None]] = {
        UNIFORM: (UNIFORM, contest.uniform),
        RANDOM_ARCHITECTURE: (RANDOM_ARCHITECTURE, contest.random),
        RANDOM_INITIALISATION: (RANDOM_INITIALISATION, best.architecture),
    }
    itself = {
        name
        for name, (kind, shape) in wanted.items()
        if shape == best.architecture and best.from_scratch == (kind == RANDOM_INITIALISATION)
    }
    wanted = {WINNER: (role, best.architecture), **wanted}
    found = {}
    for name, (kind, shape) in wanted.items():
        if shape is not None and name not in {*baselines, *itself}:
            kl = short_kl(contest, kind, shape, plan)
            if kl is not None:
                found[name] = kl
    return found


@dataclass(frozen=True)
class Searched:
    """How much of the space was looked at."""

    architectures: int
    """Inside the budget."""
    allowed: int
    """Of these, those that the scores before training left in."""
    tried: int
    """Trials that came to their end or were stopped early."""
    stopped: int
    """Of these, those that were stopped early."""
    asked: int
    """Trials that the user asked for."""
    exhausted: bool
    """Whether nothing was left to try."""

    @classmethod
    def of(cls, record: Record, asked: int) -> "Searched":
        count, allowed = len(record.space.feasible), record.policy.allowed
        return cls(
            architectures=count,
            allowed=count if allowed is None else len(allowed),
            tried=len(record.trials(*FINISHED)),
            stopped=len(record.trials(TrialState.PRUNED)),
            asked=asked,
            exhausted=record.exhausted,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def verdicts(self) -> list[str]:
        """What was tried, what was not, and whether that says much."""
        left_in = ""
        if self.allowed < self.architectures:
            left_in = f" ({self.allowed:,} of them left in by the scores before training)"
        lines = []
        if self.tried < self.asked and not self.exhausted:
            lines.append(f"Only {self.tried} of {self.asked} trials fitted into the time.")
        lines.append(
            f"The space has {self.architectures:,} architectures{left_in}; tried: {self.tried}, of"
            f" which {self.stopped} stopped early."
        )
        if self.tried < min(FEW_TRIALS, self.allowed):
            lines.append(
                "So few trials say little: there may well be better architectures among those that "
                "were not tried."
            )
        return lines


def verdicts(found: Comparison) -> list[str]:
    """The winner against each baseline and the runner-up, as the intervals allow."""
    itself = found.winner_is
    lines = [] if itself is None else [f"{_sentence(ITSELF[itself])}."]
    if itself is not None and found.contest.along_a_front:
        lines = [f"The winner is {NAMED[itself]} of its size."]
    for name in (UNIFORM, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION):
        if name in found.full:
            lines.append(_in_full(found, name))
    short = found.short
    lines += [_after_short(found, name, short[name]) for name in NAMED if name in short]
    if found.contest.stage.evidence == EVIDENCE_NONE:
        lines.append(
            "Nothing was run to be compared (--evidence none): whether the winner is better than a "
            "uniform shrink or a random architecture of its size is not known."
        )
    else:
        lines += [
            _missing(found, name)
            for name in (UNIFORM, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION)
            if name not in {*found.full, *short, itself}
        ]
    if short:
        lines.append(_not_known(found, list(short)))
    if RUNNER_UP in found.full:
        lines.append(_in_full(found, RUNNER_UP))
    return lines


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _said(difference: Interval) -> str:
    if difference.high < 0:
        return "is better than"
    if difference.low > 0:
        return "is worse than"
    return "cannot be told apart from"


def _in_full(found: Comparison, name: str) -> str:
    difference = found.full[name]
    line = f"The winner {_said(difference)} {NAMED[name]}"
    own, other = found.winners[0].runs[0].tokens, _other(found, name).runs[0].tokens
    if other != own:
        line += f" after {other:,} tokens (the winner had {own:,})"
    line += f": difference in test KL {difference}."
    if difference.low > 0:
        line += " It was chosen on the selection split; the test split chooses nothing."
    return line


def _other(found: Comparison, name: str) -> Measured:
    return found.winners[1] if name == RUNNER_UP else found.baselines[name]


def _after_short(found: Comparison, name: str, difference: Interval) -> str:
    bounds = f"{difference.mean:.4f} [{difference.low:.4f}, {difference.high:.4f}]"
    return (
        f"After short runs of {found.contest.stage.short_tokens:,} tokens the winner's "
        f"architecture {_said(difference)} {NAMED[name]}: difference in selection KL {bounds}."
    )


def _missing(found: Comparison, name: str) -> str:
    if name == RANDOM_ARCHITECTURE and found.contest.random is None:
        return (
            "There is no random architecture to hold the winner against: the space has none beside "
            "the candidates and the uniform shrink."
        )
    run = "full" if found.contest.stage.evidence == EVIDENCE_FULL else "short"
    if run == "short" and WINNER not in found.short_kl:
        return (
            f"The winner's architecture has no finished short run to hold against {NAMED[name]}: "
            "its loss diverged."
        )
    return (
        f"{_sentence(NAMED[name])} has no finished {run} run to hold the winner "
        "against: its loss diverged."
    )


def _not_known(found: Comparison, names: list[str]) -> str:
    others = " and ".join([", ".join(map(NAMED.__getitem__, names[:-1])), NAMED[names[-1]]])
    others = others.removeprefix(" and ")
    return (
        f"Not known: how {others} would do after a full run, and how much training seeds move the "
        "figures of short runs, which are of one seed and of the text that the winner was chosen "
        "by (--evidence full)."
    )
