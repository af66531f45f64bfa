"""Which students are distilled in full, and which of them wins."""

from dataclasses import dataclass

import numpy as np

from pruning import Architecture
from search.finals import FullResult, FullRun
from search.record import Record

CANDIDATE = "candidate"
UNIFORM = "uniform shrink"
RANDOM_ARCHITECTURE = "random architecture"
RANDOM_INITIALISATION = "random initialisation"


@dataclass(frozen=True)
class Contest:
    """The students of a study's last stage."""

    candidates: list[Architecture]
    """Best by selection KL after the short run, best first."""
    uniform: Architecture
    random: Architecture | None
    """One architecture of the band, drawn without looking; None where the band has no other."""

    @classmethod
    def of(cls, record: Record, winners: int) -> "Contest":
        ranked = [Architecture.from_dict(t.user_attrs["architecture"]) for t in record.ranked()]
        uniform = record.space.anchors()[UNIFORM]
        assert uniform is not None, "a band with any architecture has a uniform shrink"
        candidates = ranked[:winners]
        others = [a for a in record.space.feasible if a not in {*candidates, uniform}]
        random = None
        if others:
            generator = np.random.default_rng([record.seed, 3])
            random = others[int(generator.integers(len(others)))]
        return cls(candidates, uniform, random)

    def first_round(self) -> list[FullRun]:
        """One full run of each student that a cut gives."""
        runs = [FullRun(CANDIDATE, architecture) for architecture in self.candidates]
        if self.uniform not in self.candidates:
            runs.append(FullRun(UNIFORM, self.uniform))
        if self.random:
            runs.append(FullRun(RANDOM_ARCHITECTURE, self.random))
        return runs

    def order(self, results: dict[FullRun, FullResult]) -> list[Architecture]:
        """The candidates by selection KL after full distillation, best first."""
        kl = {run.architecture: r.selection.means()["kl"] for run, r in results.items()}
        return sorted(self.candidates, key=lambda architecture: kl[architecture])

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
