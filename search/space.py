"""The architectures that a study may try: choices per axis, and which of them the budget leaves.

Everything is enumerated with array arithmetic (no model is built), so that a proposal is inside the
budget by construction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, IntDistribution
from transformers import PretrainedConfig

from pruning import Architecture, architecture_of, is_legal, parameter_count
from search.config import BudgetConfig, SpaceConfig
from search.errors import SearchError

SEARCHED = ("layers", "hidden", "heads", "ffn")
"""The axes that a proposal chooses; KV heads follow from them."""

FEWEST = 100
"""A budget above 1 and below this many parameters is a share that was meant, and too large."""


@dataclass(frozen=True)
class Budget:
    """A band of parameter counts."""

    smallest: int
    largest: int

    @classmethod
    def of(cls, limits: BudgetConfig, teacher_parameters: int) -> "Budget":
        if 1 < limits.parameters < FEWEST:
            raise SearchError(
                f"--budget.parameters is {limits.parameters:g}, above 1 times the teacher; give a "
                "share of the teacher's parameters, at most 1, or their number, such as 4e9"
            )
        share = limits.parameters <= 1
        largest = limits.parameters * teacher_parameters if share else limits.parameters
        if largest > teacher_parameters:
            raise SearchError(
                f"--budget.parameters is {limits.parameters:g}, above the teacher's "
                f"{teacher_parameters:,} parameters; a student must be smaller than its teacher"
            )
        smallest = -int(-largest * (1 - limits.tolerance) // 1)
        return cls(smallest=smallest, largest=int(largest))

    def __str__(self) -> str:
        return f"{self.smallest:,} to {self.largest:,} parameters"


@dataclass(frozen=True)
class Space:
    """Choices per axis and the legal architectures in the budget's band."""

    teacher: Architecture
    choices: dict[str, list[int]]
    legal_count: int
    """Architectures that can be cut out of the teacher, whatever their size."""
    feasible: tuple[Architecture, ...]
    """Those in the band, in a fixed order."""
    parameters: tuple[int, ...]
    """Parameters of each of `feasible`."""

    @classmethod
    def build(cls, config: PretrainedConfig, given: SpaceConfig, budget: Budget) -> "Space":
        """Raises SearchError for choices that cannot be and for a band without architectures."""
        teacher = architecture_of(config)
        choices = {
            "layers": _choices("layers", given.layers, _default_layers(teacher), teacher.layers),
            "hidden": _choices("hidden", given.hidden, _default_hidden(teacher), teacher.hidden),
            "heads": _choices("heads", given.heads, _default_heads(teacher), teacher.heads),
            "ffn": _choices("ffn", given.ffn, _default_ffn(teacher), teacher.ffn),
        }
        grouped = teacher.heads != teacher.kv_heads
        for heads in choices["heads"]:
            if grouped and heads % teacher.kv_heads:
                raise SearchError(
                    f"--space.heads has {heads}; it must be a multiple of the teacher's "
                    f"{teacher.kv_heads} KV heads"
                )
        grid = np.meshgrid(*(np.array(choices[a], dtype=np.int64) for a in SEARCHED), indexing="ij")
        layers, hidden, q_heads, ffn = (axis.ravel() for axis in grid)
        kv_heads = np.full_like(q_heads, teacher.kv_heads) if grouped else q_heads
        columns = (layers, hidden, q_heads, kv_heads, ffn)
        every = Architecture(*columns)  # type: ignore[arg-type]
        legal = is_legal(config, every)
        counts = parameter_count(config, every)
        if not legal.any():
            raise SearchError(
                f"no choice of --space can be cut out of the teacher ({teacher}): none of "
                f"--space.hidden ({_shown(choices['hidden'])}) is a multiple of any of "
                f"--space.heads ({_shown(choices['heads'])}), as {config.model_type} models need"
            )
        in_band = legal & (counts >= budget.smallest) & (counts <= budget.largest)
        if not in_band.any():
            raise SearchError(_nothing_in_band(columns, legal, counts, budget))
        chosen = zip(*(column[in_band].tolist() for column in columns), strict=True)
        return cls(
            teacher=teacher,
            choices=choices,
            legal_count=int(legal.sum()),
            feasible=tuple(Architecture(*sizes) for sizes in chosen),
            parameters=tuple(counts[in_band].tolist()),
        )

    @cached_property
    def parameters_of(self) -> dict[Architecture, int]:
        return dict(zip(self.feasible, self.parameters, strict=True))

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Place of each feasible architecture on the searched axes, each scaled to [0, 1]."""
        return np.array([self.position(architecture) for architecture in self.feasible])

    def position(self, architecture: Architecture) -> list[float]:
        scaled = []
        for axis in SEARCHED:
            low, high = self.choices[axis][0], self.choices[axis][-1]
            scaled.append((getattr(architecture, axis) - low) / max(1, high - low))
        return scaled

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view of the axes: ints with the step that reaches every choice."""
        return {axis: _distribution(self.choices[axis]) for axis in SEARCHED}

    def params(self, architecture: Architecture) -> dict[str, int]:
        """The searched axes of an architecture, as Optuna stores them."""
        return {axis: getattr(architecture, axis) for axis in SEARCHED}

    def anchors(self) -> dict[str, Architecture | None]:
        """The shapes a person would try first; None where the band has none.

        The uniform shrink keeps the depth and cuts all width axes by as near one ratio as the
        choices allow. Where the space leaves out the teacher's depth, its deepest counts as full.
        """
        teacher = self.teacher
        deepest = max(a.layers for a in self.feasible)
        full_depth = [a for a in self.feasible if a.layers == teacher.layers]
        deep = full_depth or [a for a in self.feasible if a.layers == deepest]
        uniform = min(deep, key=lambda a: (self._unevenness(a), -self.parameters_of[a]))
        widths = (teacher.hidden, teacher.heads, teacher.ffn)
        full_width = [a for a in self.feasible if (a.hidden, a.heads, a.ffn) == widths]
        return {
            "uniform shrink": uniform,
            "largest width-only": self._largest(full_depth),
            "largest depth-only": self._largest(full_width),
        }

    def _unevenness(self, architecture: Architecture) -> float:
        teacher = self.teacher
        ratios = np.log(
            [
                architecture.hidden / teacher.hidden,
                architecture.heads / teacher.heads,
                architecture.ffn / teacher.ffn,
            ]
        )
        return float(ratios.max() - ratios.min())

    def _largest(self, architectures: Iterable[Architecture]) -> Architecture | None:
        return max(architectures, key=lambda a: self.parameters_of[a], default=None)

    def describe(self, budget: Budget) -> list[str]:
        """The lines that are printed before anything starts."""
        lines = [f"space: {axis:7} {_shown(self.choices[axis])}" for axis in SEARCHED]
        lines.append(
            f"budget: {budget}; {len(self.feasible):,} of {self.legal_count:,} legal "
            "architectures are inside"
        )
        return lines


def _nothing_in_band(
    columns: tuple[NDArray[np.int64], ...],
    legal: NDArray[np.bool_],
    counts: NDArray[np.int64],
    budget: Budget,
) -> str:
    def shown(index: int) -> str:
        shape = Architecture(*(int(column[index]) for column in columns))
        return f"{shape} with {int(counts[index]):,}"

    candidates = np.flatnonzero(legal)
    smallest = candidates[counts[candidates].argmin()]
    if counts[smallest] > budget.largest:
        return (
            f"the budget of {budget.largest:,} parameters is below the smallest architecture of "
            f"the space, {shown(int(smallest))}; raise --budget.parameters or widen --space"
        )
    distance = np.abs(counts[candidates] - (budget.smallest + budget.largest) / 2)
    nearest = candidates[distance.argmin()]
    return (
        f"no architecture of the space has {budget}; the nearest is {shown(int(nearest))}; raise "
        "--budget.tolerance or widen --space"
    )


def _choices(axis: str, given: list[int] | None, default: list[int], most: int) -> list[int]:
    if given is None:
        return default
    values = given
    if len(given) == 3 and 0 < given[2] <= given[1] and given[0] <= given[1]:
        values = list(range(given[0], given[1] + 1, given[2]))
    if not values:
        raise SearchError(f"--space.{axis} is empty; give sizes, or [min, max, step]")
    for value in values:
        if not 1 <= value <= most:
            raise SearchError(f"--space.{axis} has {value}; it must be between 1 and {most}")
    return sorted(set(values))


def _default_layers(teacher: Architecture) -> list[int]:
    return list(range(max(1, teacher.layers // 3), teacher.layers + 1))


def _default_heads(teacher: Architecture) -> list[int]:
    step = 1 if teacher.heads == teacher.kv_heads else teacher.kv_heads
    return list(range(step, teacher.heads + 1, step))


def _default_hidden(teacher: Architecture) -> list[int]:
    step = _step(teacher.hidden, 24)
    return list(range(_from(teacher.hidden // 3, step), teacher.hidden + 1, step))


def _default_ffn(teacher: Architecture) -> list[int]:
    step = _step(teacher.ffn, 32)
    return list(range(_from(teacher.ffn // 4, step), teacher.ffn + 1, step))


def _step(size: int, parts: int) -> int:
    """The largest power of two that divides `size` and is at most `size / parts`."""
    step = 1
    while size % (step * 2) == 0 and step * 2 * parts <= size:
        step *= 2
    return step


def _from(low: int, step: int) -> int:
    return max(step, -(-low // step) * step)


def _distribution(choices: list[int]) -> IntDistribution:
    step = 0
    for value in choices[1:]:
        step = gcd(step, value - choices[0])
    return IntDistribution(choices[0], choices[-1], step=max(1, step))


def _shown(choices: list[int]) -> str:
    if len(choices) <= 8:
        return ", ".join(map(str, choices))
    return f"{choices[0]}, {choices[1]}, ... {choices[-1]} ({len(choices)} choices)"
