"""A search replayed on the table: what it would have tried, stopped and chosen, and when."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.benchmarks.search.replays.strategies import (
    BEST_BEFORE,
    LARGEST,
    LARGEST_WIDTH,
    SAMPLER,
    Strategy,
)
from pruning import AXES, Architecture
from search.samplers import Proposer
from search.space import Space
from search.study import FINISHED, RUNNING, STOPPED, Observation, Rungs

SCORING_TOKENS = 8_192 / 3
"""Training tokens that a measurement before training costs: a forward pass over 8,192 tokens is a
third of a training step on them."""
CONCURRENT = 2
"""Candidates trained at once."""


@dataclass(frozen=True)
class Table:
    """Every run that a replay can look up."""

    space: Space
    tokens: tuple[int, ...]
    """Tokens of each measurement; the first is 0."""
    kl: dict[Architecture, NDArray[np.float64]]
    """[seeds, measurements] of each architecture."""

    @classmethod
    def of(cls, space: Space, rows: pd.DataFrame) -> "Table":
        """The runs of the space's architectures; those of others are left out."""
        kl: dict[Architecture, list[list[float]]] = {}
        for row in rows.sort_values("seed").to_dict("records"):
            shape = Architecture.from_dict({axis: row[axis] for axis in AXES if axis in row})
            kl.setdefault(shape, []).append(list(row["kl"]))
        inside = [shape for shape in space.feasible if shape in kl]
        tokens = tuple(int(n) for n in rows.tokens.iloc[0])
        return cls(space, tokens, {shape: np.array(kl[shape]) for shape in inside})

    @property
    def run_tokens(self) -> int:
        return self.tokens[-1]

    @property
    def training_tokens(self) -> int:
        """Tokens of training every architecture once."""
        return self.run_tokens * len(self.kl)

    @cached_property
    def truth(self) -> dict[Architecture, float]:
        """Final KL, the mean over training seeds."""
        return {shape: float(kl[:, -1].mean()) for shape, kl in self.kl.items()}

    @cached_property
    def best(self) -> float:
        return min(self.truth.values())

    @cached_property
    def noise(self) -> float:
        """Standard deviation of a run's final KL over seeds, relative; NaN with one seed."""
        pairs = [np.log(kl[:, -1]) for kl in self.kl.values() if len(kl) > 1]
        return float(np.sqrt(np.mean([pair.var(ddof=1) for pair in pairs]))) if pairs else np.nan

    def regret(self, shape: Architecture) -> float:
        return self.truth[shape] / self.best - 1


@dataclass
class Candidate:
    """One that was started: how far it is, and what became of it."""

    architecture: Architecture
    kl: NDArray[np.float64]
    """[measurements] of the seed that this replay sees."""
    number: int
    spared: bool
    reached: int = 0
    """Index of its last measurement."""
    state: str = RUNNING

    def observed(self, tokens: tuple[int, ...], measured: tuple[int, ...]) -> Observation:
        curve = tuple((tokens[n], float(self.kl[n])) for n in measured if 0 < n <= self.reached)
        values = (float(self.kl[-1]),) if self.state == FINISHED else None
        return Observation(self.architecture, curve, values, self.state)


@dataclass(frozen=True)
class Step:
    """The search's choice from some time on."""

    spent: float
    """Training tokens, and what scoring cost in them."""
    regret: float


class Replay:
    """One search on the table with one seed."""

    def __init__(self, table: Table, strategy: Strategy, seed: int):
        self.table, self.strategy, self.seed = table, strategy, seed
        self.limit = strategy.limit * table.training_tokens
        self.rungs = Rungs.of(
            strategy.stopper,
            table.run_tokens // table.tokens[1],
            step_tokens=table.tokens[1],
            first_share=1 / strategy.first_part,
            reduction=strategy.reduction,
        )
        ends = {*self.rungs.tokens, table.run_tokens}
        self.measured = tuple(n for n, tokens in enumerate(table.tokens) if tokens in ends)
        generator = np.random.default_rng([seed, 1])
        self.seen = {shape: kl[generator.integers(len(kl))] for shape, kl in table.kl.items()}
        self.candidates: list[Candidate] = []
        self.zero_shot = self._scored(generator)

    def _scored(self, generator: np.random.Generator) -> dict[Architecture, float]:
        shapes = list(self.seen)
        generator.shuffle(shapes)
        if self.strategy.largest:
            shapes.sort(key=lambda shape: -self.table.space.parameters_of[shape])
        return {shape: float(self.seen[shape][0]) for shape in shapes[: self.strategy.scored]}

    @cached_property
    def _first(self) -> list[Architecture]:
        """What comes before any proposal, in order."""
        if self.strategy.order == SAMPLER:
            shapes = [self._named[name] for name in self.strategy.anchors]
            return [shape for shape in dict.fromkeys(shapes) if shape in self.seen]
        if self.strategy.order == BEST_BEFORE:
            return sorted(self.zero_shot, key=lambda shape: self.zero_shot[shape])
        if self.strategy.order == LARGEST:
            return sorted(self.seen, key=lambda shape: -self.table.space.parameters_of[shape])
        shape = self._named[self.strategy.order]
        assert shape is not None
        return [shape]

    @cached_property
    def _named(self) -> dict[str, Architecture | None]:
        """The shapes that a strategy can begin with."""
        space = self.table.space
        deep = [shape for shape in self.seen if shape.layers == space.choices["layers"][-1]]
        largest = max(deep, key=space.parameters_of.__getitem__, default=None)
        return {**space.anchors(), LARGEST_WIDTH: largest}

    def _next(self) -> Architecture | None:
        if len(self.candidates) < len(self._first):
            return self._first[len(self.candidates)]
        if self.strategy.order != SAMPLER:
            return None
        space, settings = self.table.space, self.strategy.settings
        proposer = Proposer(space, settings, self.seed, self.zero_shot, self.seen)
        return proposer([c.observed(self.table.tokens, self.measured) for c in self.candidates])

    def _start(self) -> Candidate | None:
        shape = self._next()
        if shape is None:
            return None
        number = len(self.candidates)
        spared = shape in {self._named[name] for name in self.strategy.spared}
        self.candidates.append(Candidate(shape, self.seen[shape], number, spared))
        return self.candidates[-1]

    def steps(self) -> Iterator[Step]:
        """The search's choice whenever it changes, up to the limit.

        Ends where it cannot change any more: with the best run that this replay can see.
        """
        final = min(self.seen, key=lambda shape: float(self.seen[shape][-1]))
        slots: list[tuple[float, int, int]] = []
        for slot in range(CONCURRENT):
            self._occupy(slots, 0.0, slot)
        chosen, before, spent = None, 0.0, SCORING_TOKENS * len(self.zero_shot)
        while slots:
            busy = len(slots)
            time, slot, number = heapq.heappop(slots)
            spent, before = spent + (time - before) * busy, time
            if spent > self.limit:
                return
            candidate = self.candidates[number]
            candidate.reached = next(n for n in self.measured if n > candidate.reached)
            candidate.state = self._state(candidate)
            if candidate.state == RUNNING:
                self._continue(slots, time, slot, candidate)
            else:
                self._occupy(slots, time, slot)
            if (best := self._choice()) != chosen:
                chosen = best
                yield Step(spent, self.table.regret(best))
            if best == final and self._is_finished(best):
                return

    def _occupy(self, slots: list[tuple[float, int, int]], time: float, slot: int) -> None:
        candidate = self._start()
        if candidate is not None:
            self._continue(slots, time, slot, candidate)

    def _continue(
        self, slots: list[tuple[float, int, int]], time: float, slot: int, candidate: Candidate
    ) -> None:
        tokens = self.table.tokens
        after = next(n for n in self.measured if n > candidate.reached)
        ends = time + tokens[after] - tokens[candidate.reached]
        heapq.heappush(slots, (ends, slot, candidate.number))

    def _state(self, candidate: Candidate) -> str:
        if candidate.reached == len(self.table.tokens) - 1:
            return FINISHED
        tokens, index = self.table.tokens[candidate.reached], candidate.reached
        if candidate.spared or not self.rungs.applies(candidate.number, tokens):
            return RUNNING
        others = [
            float(c.kl[index]) for c in self.candidates if c is not candidate and c.reached >= index
        ]
        return STOPPED if self.rungs.stops(float(candidate.kl[index]), others) else RUNNING

    def _is_finished(self, shape: Architecture) -> bool:
        return any(c.architecture == shape and c.state == FINISHED for c in self.candidates)

    def _choice(self) -> Architecture:
        """The best of those that came furthest."""
        measured = [c for c in self.candidates if c.reached]
        return min(measured, key=lambda c: (-c.reached, c.kl[c.reached])).architecture


def replayed(table: Table, strategy: Strategy, seed: int) -> list[Step]:
    """The choices of one search, up to the strategy's share of the table's tokens."""
    return list(Replay(table, strategy, seed).steps())
