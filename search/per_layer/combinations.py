"""Combinations of blocks that a study found and chose from, as they are recorded.

A round is recorded once, in the study and beside it in the workspace: who comes later, be it a
driver that was killed or another one of the study, goes on with the same combinations.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_file_atomically
from pruning import Architecture

NAME = "per-layer"
"""Begins the names of the trials of combinations."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A block for every layer, chosen by the programme or by a control."""

    architecture: Architecture
    """The student that it is."""
    control: str | None = None
    """Name of the control that chose it; None: it is a solution of the programme."""
    score: float
    """Sum of the scores of its blocks."""
    proven: bool = False
    """Whether it is the optimum within the gap asked for."""
    gap: float | None = None
    """Relative gap to the optimum that is left; None where no bound is known."""
    zero_shot: float | None = None
    """KL before training; None where it was not measured or is not finite."""
    name: str | None = None
    """Of its trial; None where it becomes none."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the architecture as text."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"architecture": str(self.architecture)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Combination":
        """The combination that `to_dict` wrote."""
        return cls(**{**values, "architecture": Architecture.parse(values["architecture"])})


@dataclass(frozen=True)
class Round:
    """Combinations from one measurement of scores: solutions by depth, then controls."""

    number: int
    """From 1."""
    combinations: tuple[Combination, ...]
    """All, each architecture once for the programme and once for each control."""
    ended: tuple[str, ...] = ()
    """Sentences on solutions and controls that there are not."""

    @property
    def trials(self) -> dict[str, Architecture]:
        """Those that become trials, by name."""
        return {one.name: one.architecture for one in self.combinations if one.name is not None}

    @property
    def zero_shot(self) -> dict[Architecture, float]:
        """KL before training where it is known."""
        return {
            one.architecture: one.zero_shot
            for one in self.combinations
            if one.zero_shot is not None
        }

    def lines(self) -> list[str]:
        """What is printed of it."""
        lines = [f"per-layer: {sentence}" for sentence in self.ended]
        for one in self.combinations:
            if one.name is not None:
                kl = "not known" if one.zero_shot is None else f"{one.zero_shot:.4f}"
                lines.append(
                    f"{one.name}: {one.architecture}, summed score {one.score:.4g}, KL before "
                    f"training {kl}"
                )
        return lines

    def named(self, zero_shot: Mapping[Architecture, float], *, count: int) -> "Round":
        """With their KL before training, and the names of those that become trials: the `count`
        solutions of the lowest KL, since sums of scores do not rank students of several depths, and
        all controls."""
        scored = [
            replace(one, zero_shot=kl if np.isfinite(kl := zero_shot[one.architecture]) else None)
            for one in self.combinations
        ]
        solutions = [one for one in scored if one.control is None]
        best = sorted(solutions, key=lambda one: _or_last(one.zero_shot))[:count]
        before = "" if self.number == 1 else f"round {self.number}, "
        names = {id(one): f"{NAME} {before}{place}" for place, one in enumerate(best, 1)}
        named = [
            *(replace(one, name=names[id(one)]) for one in best),
            *(one for one in solutions if id(one) not in names),
            *(
                replace(one, name=f"{NAME} {before}{one.control}")
                for one in scored
                if one.control is not None
            ),
        ]
        return replace(self, combinations=tuple(named))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "number": self.number,
            "combinations": [one.to_dict() for one in self.combinations],
            "ended": list(self.ended),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Round":
        """The round that `to_dict` wrote."""
        combinations = tuple(Combination.from_dict(one) for one in values["combinations"])
        return cls(values["number"], combinations, tuple(values["ended"]))


def distance_to_nearest(one: Combination, others: Sequence[Combination]) -> int | None:
    """Layers in which it differs at least from the other solutions of its depth; None where there
    is no other."""
    own = _blocks(one)
    distances = [
        sum(first != second for first, second in zip(own, _blocks(other), strict=True))
        for other in others
        if other is not one
        and other.control is None
        and other.architecture.layers == one.architecture.layers
    ]
    return min(distances, default=None)


def write_round(path: Path, found: Round) -> None:
    """Write a round as JSON."""
    write_file_atomically(path, json.dumps(found.to_dict(), indent=1) + "\n")


def _blocks(one: Combination) -> list[Any]:
    return [one.architecture.block(index) for index in range(one.architecture.layers)]


def _or_last(kl: float | None) -> float:
    return np.inf if kl is None else kl
