"""Comparison of the winner with its baselines and other candidates, paired over sequences."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.intervals import Interval, difference_interval, mean_interval
from pruning import Architecture
from search.config.names import (
    CANDIDATE,
    EVIDENCE_SHORT,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
)
from search.finals.measure import Measured, MeasuredStudents
from search.finals.selection import FinalSelection
from search.results.results import ShortRuns
from search.space.anchors import UNIFORM
from search.workers.full_runs import FullPlan, load_result

WINNER = "winner"
RUNNER_UP = "runner-up"

PerSequence = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The winner against its baselines and the other candidates."""

    selection: FinalSelection
    """The students of the last stage."""
    students: MeasuredStudents
    """Winners and baselines on the test split."""
    full: dict[str, Interval]
    """Differences of test KL, winner minus the other, paired; negative: the winner is better. By
    name of the baseline or candidate."""
    short_kl: dict[str, PerSequence]
    """After the short run, selection KL of each sequence: of the winner's architecture, and of the
    baselines that were not distilled in full."""

    @classmethod
    def of(
        cls, selection: FinalSelection, students: MeasuredStudents, *, plan: FullPlan
    ) -> "Comparison":
        """With other candidates only where they are rivals, not trade-offs of objectives."""
        best = students.best
        others = {name: one for name, one in students.baselines.items() if one is not best}
        if not selection.along_a_front:
            others |= _candidates(students)
        full = {
            name: difference_interval([e.kl for e in best.test], [e.kl for e in other.test])
            for name, other in others.items()
        }
        return cls(selection, students, full, _short_kls(selection, students, plan=plan))

    @property
    def candidates(self) -> dict[str, Measured]:
        """The winners behind the first, by the names that their differences have."""
        return _candidates(self.students)

    @property
    def short(self) -> dict[str, Interval]:
        """Differences of selection KL after the short run, paired over sequences; of one training
        seed."""
        kls = dict(self.short_kl)
        own = kls.pop(WINNER, None)
        if own is None:
            return {}
        return {name: difference_interval([own], [other]) for name, other in kls.items()}

    @property
    def winner_is(self) -> str | None:
        """The baseline that the winner is."""
        best = self.students.best
        if best.from_scratch:
            return RANDOM_INITIALISATION
        named = {self.selection.uniform: UNIFORM, self.selection.random: RANDOM_ARCHITECTURE}
        return named.get(best.architecture)

    def short_runs(self) -> ShortRuns:
        """Scores and differences after short runs."""
        return ShortRuns(
            tokens=self.selection.stage.short_tokens,
            selection_kl={name: mean_interval([kl]) for name, kl in self.short_kl.items()},
            differences=self.short,
        )


def _candidates(students: MeasuredStudents) -> dict[str, Measured]:
    others = enumerate(students.winners[1:], 2)
    return {RUNNER_UP if rank == 2 else f"candidate {rank}": one for rank, one in others}


def short_kl(
    selection: FinalSelection, role: str, *, shape: Architecture, plan: FullPlan
) -> PerSequence | None:
    """Selection KL of each sequence after a short run: of the trial that came to its end, or of a
    baseline's run."""
    if role != RANDOM_INITIALISATION and shape in selection.scored:
        return selection.scored[shape]
    result = load_result(selection.short_run(role, shape), plan)
    return None if result is None else result.selection.kl


def _short_kls(
    selection: FinalSelection, students: MeasuredStudents, *, plan: FullPlan
) -> dict[str, PerSequence]:
    """Of the winner's architecture, and of the baselines that it is not itself and that were not
    distilled in full."""
    if selection.stage.evidence != EVIDENCE_SHORT:
        return {}
    best = students.best
    role = RANDOM_INITIALISATION if best.from_scratch else CANDIDATE
    wanted: dict[str, tuple[str, Architecture | None]] = {
        UNIFORM: (UNIFORM, selection.uniform),
        RANDOM_ARCHITECTURE: (RANDOM_ARCHITECTURE, selection.random),
        RANDOM_INITIALISATION: (RANDOM_INITIALISATION, best.architecture),
    }
    itself = {
        name
        for name, (kind, shape) in wanted.items()
        if shape == best.architecture and best.from_scratch == (kind == RANDOM_INITIALISATION)
    }
    wanted = {WINNER: (role, best.architecture), **wanted}
    kls = {}
    for name, (kind, shape) in wanted.items():
        if shape is not None and name not in {*students.baselines, *itself}:
            kl = short_kl(selection, kind, shape=shape, plan=plan)
            if kl is not None:
                kls[name] = kl
    return kls
