"""Which students are distilled in full, and which of them wins."""

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from pruning import Architecture
from search.errors import SearchStopped
from search.finals import FullResult, FullRun
from search.record import Record

CANDIDATE = "candidate"
UNIFORM = "uniform shrink"
RANDOM_ARCHITECTURE = "random architecture"
RANDOM_INITIALISATION = "random initialisation"
UNCORRECTED = "uncorrected teacher"
"""The winner's shape, cut from and taught by the teacher as the user gave it."""


@dataclass(frozen=True)
class Contest:
    """The students of a study's last stage."""

    candidates: list[Architecture]
    """Best by selection KL after the short run, best first."""
    uniform: Architecture
    random: Architecture
    """One architecture of the band, drawn by the seed alone."""

    @classmethod
    def of(cls, record: Record, winners: int) -> "Contest":
        ranked = [Architecture.from_dict(t.user_attrs["architecture"]) for t in record.ranked()]
        uniform = record.space.anchors()[UNIFORM]
        assert uniform is not None, "a band with any architecture has a uniform shrink"
        candidates = ranked[:winners]
        generator = np.random.default_rng([record.seed, 3])
        random = record.space.feasible[int(generator.integers(len(record.space.feasible)))]
        return cls(candidates, uniform, random)

    def first_round(self) -> list[FullRun]:
        """One full run of each student that a cut gives."""
        runs = [FullRun(CANDIDATE, architecture) for architecture in self.candidates]
        if self.uniform not in self.candidates:
            runs.append(FullRun(UNIFORM, self.uniform))
        if self.random not in {*self.candidates, self.uniform}:
            runs.append(FullRun(RANDOM_ARCHITECTURE, self.random))
        return runs

    def order(self, results: dict[FullRun, FullResult]) -> list[Architecture]:
        """The candidates by selection KL after full distillation, best first.

        Raises SearchStopped where none came through.
        """
        kl = {run.architecture: r.selection.means()["kl"] for run, r in results.items()}
        finished = [a for a in self.candidates if isfinite(kl.get(a, nan))]
        if not finished:
            raise SearchStopped(
                "the loss of every candidate diverged in full distillation; start a new --study "
                "with a lower --training.learning_rate"
            )
        return sorted(finished, key=lambda architecture: kl[architecture])

    def second_round(self, order: list[Architecture], seeds: int) -> list[FullRun]:
        """More seeds of those that are compared, and the winner's shape from random weights."""
        winner = order[0]
        compared = [winner, *order[1:2]]
        if self.uniform not in compared:
            compared.append(self.uniform)
        runs = [FullRun(RANDOM_INITIALISATION, winner, from_scratch=True)]
        for shuffle in range(1, seeds):
            for architecture in compared:
                role = UNIFORM if architecture == self.uniform else CANDIDATE
                runs.append(FullRun(role, architecture, shuffle))
        return runs
