"""Which students are distilled in full, and which of them wins."""

from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np
from optuna.trial import TrialState

from pruning import Architecture
from search.anchors import UNIFORM
from search.errors import SearchStopped
from search.finals import FullResult, FullRun
from search.pareto import spread
from search.record import SEQUENCES, Record, architecture_of
from search.ties import indistinguishable, probability_best

CANDIDATE = "candidate"
RANDOM_ARCHITECTURE = "random architecture"
RANDOM_INITIALISATION = "random initialisation"
UNCORRECTED = "uncorrected teacher"
"""The winner's shape, cut from and taught by the teacher as the user gave it."""


@dataclass(frozen=True)
class Contest:
    """The students of a study's last stage."""

    candidates: list[Architecture]
    """To be distilled in full, best first by the short run; of several objectives, the knee of the
    front first."""
    uniform: Architecture
    random: Architecture
    """One architecture of the band, drawn by the seed alone."""
    tied: list[Architecture]
    """Those of the candidates that are there because they cannot be told from the last winner."""
    scratch_tokens: int | None = None
    """Of the run from random weights, where it is longer than the others."""
    along_a_front: bool = False
    """Whether the candidates are trade-offs of several objectives, not rivals."""
    sources: dict[Architecture, str] = field(default_factory=dict)
    """Of a family: the larger member that a student is cut from where that was better."""

    @classmethod
    def of(
        cls, record: Record, winners: int, ties: int, scratch_tokens: int | None = None
    ) -> "Contest":
        """Choose from the scored trials of `record`."""
        several = record.objectives.several
        candidates = _along_the_front(record, winners) if several else _best(record, winners)
        tied = [] if several else _ties(record, winners, ties)
        anchor = record.space.anchors()[UNIFORM]
        assert anchor is not None, "a band with any architecture has a uniform shrink"
        uniform = _as_large_as(record, candidates[0]) if several else anchor
        generator = np.random.default_rng([record.seed, 3])
        random = record.space.feasible[int(generator.integers(len(record.space.feasible)))]
        return cls([*candidates, *tied], uniform, random, tied, scratch_tokens, several)

    def run(self, role: str, shape: Architecture, shuffle: int = 0) -> FullRun:
        """A full run of a student, cut from where it is best cut from."""
        return FullRun(role, shape, shuffle, source=self.sources.get(shape, ""))

    def scratch(self, shape: Architecture, shuffle: int = 0) -> FullRun:
        """A full run from random weights."""
        return FullRun(
            RANDOM_INITIALISATION,
            shape,
            shuffle,
            from_scratch=True,
            tokens=self.scratch_tokens,
        )

    def first_round(self, seeds: int = 1) -> list[FullRun]:
        """Full runs of the students that a cut gives; `seeds` of each candidate."""
        runs = [
            FullRun(CANDIDATE, shape, shuffle)
            for shuffle in range(seeds)
            for shape in self.candidates
        ]
        if self.uniform not in self.candidates:
            runs.append(FullRun(UNIFORM, self.uniform))
        if self.random not in {*self.candidates, self.uniform}:
            runs.append(FullRun(RANDOM_ARCHITECTURE, self.random))
        return runs

    def order(self, results: dict[FullRun, FullResult]) -> list[Architecture]:
        """The candidates by selection KL after full distillation, best first; of several
        objectives, as they were chosen.

        Raises SearchStopped where none came through.
        """
        kls: dict[Architecture, list[float]] = {}
        for run, result in results.items():
            kls.setdefault(run.architecture, []).append(result.selection.means()["kl"])
        kl = {shape: float(np.mean(values)) for shape, values in kls.items()}
        first = {run.architecture for run in results if run.shuffle == 0}
        finished = [a for a in self.candidates if a in first and isfinite(kl.get(a, nan))]
        if not finished:
            raise SearchStopped(
                "the loss of every candidate diverged in full distillation; start a new --study "
                "with a lower --training.learning_rate"
            )
        if self.along_a_front:
            return finished
        return sorted(finished, key=lambda architecture: kl[architecture])

    def second_round(self, order: list[Architecture], seeds: int) -> list[FullRun]:
        """More seeds of those that are compared, and the winner's shape from random weights."""
        winner = order[0]
        compared = [winner, *order[1:2]]
        if self.uniform not in compared:
            compared.append(self.uniform)
        runs = [self.scratch(winner)]
        for shuffle in range(1, seeds):
            for architecture in compared:
                role = UNIFORM if architecture == self.uniform else CANDIDATE
                runs.append(self.run(role, architecture, shuffle))
        return runs


def _best(record: Record, winners: int) -> list[Architecture]:
    return [architecture_of(trial) for trial in record.ranked()[:winners]]


def _ties(record: Record, winners: int, most: int) -> list[Architecture]:
    """Scored candidates beyond the winners that cannot be told from the last of them."""
    scores = _sequence_scores(record)
    if len(scores) <= winners:
        return []
    shapes = {str(shape): shape for shape in map(architecture_of, record.ranked())}
    return [shapes[name] for name in indistinguishable(scores, winners)[:most]]


def chances(record: Record) -> dict[str, float]:
    """How likely each candidate is the best, by its short run and the noise of that; the likeliest
    first, by the architecture's name."""
    scores = _sequence_scores(record)
    return probability_best(scores) if scores else {}


def _sequence_scores(record: Record) -> dict[str, Any]:
    """Selection KL of each sequence after the short run, of the candidates that came to its end."""
    return {
        str(architecture_of(trial)): np.array(trial.user_attrs[SEQUENCES])
        for trial in record.ranked()
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get(SEQUENCES)
    }


def _along_the_front(record: Record, count: int) -> list[Architecture]:
    """The knee of the front, and others that take in most of its hypervolume with it."""
    scored = [t for t in record.ranked() if t.state == TrialState.COMPLETE]
    values = np.array([record.objectives.minimised(t.values) for t in scored])
    if not len(scored):
        return _best(record, count)
    return [architecture_of(scored[index]) for index in spread(values, count)]


def _as_large_as(record: Record, winner: Architecture) -> Architecture:
    """The uniform shrink of about the winner's parameters: what it is to be held against where the
    search has no band."""
    parameters = record.space.parameters_of
    wanted = parameters[winner]
    near = [a for a in parameters if 0.95 * wanted <= parameters[a] <= wanted]
    return record.space.most_even(near or [winner])
