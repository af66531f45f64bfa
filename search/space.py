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

from pruning import (
    Architecture,
    PruningError,
    architecture_of,
    check_architecture,
    is_legal,
    layers_alike,
    parameter_count,
)
from pruning.families import family_of, head_dim_of
from search.config import BudgetConfig, SpaceConfig
from search.errors import SearchError

SEARCHED = ("layers", "hidden", "heads", "ffn", "experts", "expert_ffn")
"""The axes that a proposal may choose, where the teacher has them; KV heads follow from them."""
WIDTHS = SEARCHED[1:]

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
        defaults = _defaults(config, teacher)
        choices = {
            axis: _choices(axis, getattr(given, axis), defaults[axis], getattr(teacher, axis))
            for axis in SEARCHED
        }
        if choices["layers"] != [teacher.layers] and not layers_alike(config):
            raise SearchError(
                f"the teacher mixes dense layers and mixtures of experts, so that --space.layers "
                f"can only be [{teacher.layers}]: a student's size would depend on the layers kept"
            )
        grouped = teacher.heads != teacher.kv_heads
        for heads in choices["heads"]:
            if grouped and heads % teacher.kv_heads:
                raise SearchError(
                    f"--space.heads has {heads}; it must be a multiple of the teacher's "
                    f"{teacher.kv_heads} KV heads"
                )
        grid = np.meshgrid(*(np.array(choices[a], dtype=np.int64) for a in SEARCHED), indexing="ij")
        columns = {axis: column.ravel() for axis, column in zip(SEARCHED, grid, strict=True)}
        served = columns["heads"]
        columns["kv_heads"] = np.full_like(served, teacher.kv_heads) if grouped else served
        every = Architecture(**columns)  # type: ignore[arg-type]
        legal = is_legal(config, every)
        counts = parameter_count(config, every)
        if not legal.any():
            raise SearchError(_nothing_legal(config, columns))
        in_band = legal & (counts >= budget.smallest) & (counts <= budget.largest)
        if not in_band.any():
            raise SearchError(_nothing_in_band(columns, legal, counts, budget))
        chosen = zip(*(column[in_band].tolist() for column in columns.values()), strict=True)
        return cls(
            teacher=teacher,
            choices=choices,
            legal_count=int(legal.sum()),
            feasible=tuple(Architecture(**dict(zip(columns, s, strict=True))) for s in chosen),
            parameters=tuple(counts[in_band].tolist()),
        )

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a proposal chooses: those that the teacher has."""
        return tuple(axis for axis in SEARCHED if getattr(self.teacher, axis))

    @cached_property
    def parameters_of(self) -> dict[Architecture, int]:
        return dict(zip(self.feasible, self.parameters, strict=True))

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Place of each feasible architecture on the searched axes, each scaled to [0, 1]."""
        return np.array([self.position(architecture) for architecture in self.feasible])

    def position(self, architecture: Architecture) -> list[float]:
        scaled = []
        for axis in self.axes:
            low, high = self.choices[axis][0], self.choices[axis][-1]
            scaled.append((getattr(architecture, axis) - low) / max(1, high - low))
        return scaled

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view of the axes: ints with the step that reaches every choice."""
        return {axis: _distribution(self.choices[axis]) for axis in self.axes}

    def params(self, architecture: Architecture) -> dict[str, int]:
        """The searched axes of an architecture, as Optuna stores them."""
        return {axis: getattr(architecture, axis) for axis in self.axes}

    def architecture(self, params: dict[str, int]) -> Architecture:
        """The architecture of proposed sizes, with the KV heads that follow from them."""
        sizes = {axis: getattr(self.teacher, axis) for axis in SEARCHED} | params
        grouped = self.teacher.heads != self.teacher.kv_heads
        kv_heads = self.teacher.kv_heads if grouped else sizes["heads"]
        return Architecture(kv_heads=kv_heads, **sizes)

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
        full_width = [a for a in self.feasible if _widths(a) == _widths(teacher)]
        return {
            "uniform shrink": uniform,
            "largest width-only": self._largest(full_depth),
            "largest depth-only": self._largest(full_width),
        }

    def _unevenness(self, architecture: Architecture) -> float:
        pairs = zip(_widths(architecture), _widths(self.teacher), strict=True)
        ratios = np.log([size / whole for size, whole in pairs if whole])
        return float(ratios.max() - ratios.min())

    def _largest(self, architectures: Iterable[Architecture]) -> Architecture | None:
        return max(architectures, key=lambda a: self.parameters_of[a], default=None)

    def describe(self, budget: Budget) -> list[str]:
        """The lines that are printed before anything starts."""
        lines = [f"space: {axis:7} {_shown(self.choices[axis])}" for axis in self.axes]
        lines.append(
            f"budget: {budget}; {len(self.feasible):,} of {self.legal_count:,} legal "
            "architectures are inside"
        )
        return lines


def _widths(architecture: Architecture) -> tuple[int, ...]:
    return tuple(getattr(architecture, axis) for axis in WIDTHS)


def _nothing_legal(config: PretrainedConfig, columns: dict[str, NDArray[np.int64]]) -> str:
    largest = Architecture(**{axis: int(column[-1]) for axis, column in columns.items()})
    try:
        check_architecture(config, largest)
    except PruningError as problem:
        return f"no choice of --space can be cut out of the teacher; of the largest: {problem}"
    raise AssertionError("the largest choice is legal")


def _nothing_in_band(
    columns: dict[str, NDArray[np.int64]],
    legal: NDArray[np.bool_],
    counts: NDArray[np.int64],
    budget: Budget,
) -> str:
    def shown(index: int) -> str:
        shape = Architecture(**{axis: int(column[index]) for axis, column in columns.items()})
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


def _defaults(config: PretrainedConfig, teacher: Architecture) -> dict[str, list[int]]:
    """Choices per axis where the user gives none; [0] for an axis that the teacher lacks."""
    heads_step = 1 if teacher.heads == teacher.kv_heads else teacher.kv_heads
    heads = list(range(heads_step, teacher.heads + 1, heads_step))
    step = _step(teacher.hidden, 24)
    hidden = list(range(_from(teacher.hidden // 3, step), teacher.hidden + 1, step))
    if not family_of(config).has_head_dim:  # then the hidden size follows the heads
        hidden = [count * head_dim_of(config) for count in heads]
    least = max(1, teacher.layers // 3) if layers_alike(config) else teacher.layers
    top = int(getattr(config, "num_experts_per_tok", 0) or 0)
    return {
        "layers": list(range(least, teacher.layers + 1)),
        "hidden": hidden,
        "heads": heads,
        "ffn": _default_ffn(teacher.ffn),
        "experts": sorted({max(top, teacher.experts * i // 8) for i in range(1, 9)})
        if teacher.experts
        else [0],
        "expert_ffn": _default_ffn(teacher.expert_ffn),
    }


def _default_ffn(size: int) -> list[int]:
    if not size:
        return [0]
    step = _step(size, 32)
    return list(range(_from(size // 4, step), size + 1, step))


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
