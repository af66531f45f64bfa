"""Proof of a layout, axis by axis, on a tiny random model in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor

from common.errors import PruningError, reason_of
from pruning.families.architecture import Architecture
from pruning.importance.ordering import Ordering
from pruning.inference.building import loaded_from, random_model, stored_tensors
from pruning.inference.cut import TinyCut
from pruning.inference.growth import Growth
from pruning.inference.layout import Candidates, Layout
from pruning.inference.pattern import Pattern
from pruning.inference.precision import answers, difference
from pruning.inference.silencing import Sites, silenced_answers

EXACT = 1e-9
"""Largest difference in float64, relative to the largest logit, of computations that are equal."""
SEEN = 1e-4
"""Least difference that what is left out makes; a proof that cannot fail is none."""
MOST_TRIED = 64
"""Candidates of an order inside joins that are tried for one axis."""


@dataclass(frozen=True)
class Finding:
    """What came of the proof of one axis."""

    axis: str
    sorted: float | None = None
    """Difference between the teacher and the teacher with that axis in another order."""
    silenced: float | None = None
    """Difference between a smaller student and the teacher with hooks."""
    reason: str = ""
    """Why it is not proven; "" where it is."""

    @property
    def proven(self) -> bool:
        """Whether students may be smaller on it."""
        return not self.reason


@dataclass
class Prover:
    """A tiny random model, and what it answers."""

    growth: Growth
    candidates: Candidates
    sites: Sites
    model: Any
    chosen: dict[str, int] = field(default_factory=dict)
    sortable: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.stored = {n: t.clone() for n, t in stored_tensors(self.model).items()}
        generator = torch.Generator().manual_seed(2)
        vocab = self.growth.tiny.sizes["vocab"]
        self.ids = torch.randint(3, vocab, (2, 13), generator=generator)
        self.expected = answers(self.model, self.ids)

    @property
    def layout(self) -> Layout:
        """With the options that were found to be exact so far."""
        return self.candidates.layout(self.chosen)

    @property
    def whole(self) -> Architecture:
        """Sizes of the tiny model, 0 where no tensor has the axis."""
        return Architecture(**{"ffn": 0, **self.growth.sizes})

    def sorted(self, axis: str) -> float:
        """The difference that another order of an axis makes, under the options that make least.

        Tries the candidates of tensors that have several.
        """
        undecided = self.candidates.open_for(axis)
        options = [range(len(self.candidates.options[name])) for name in undecided]
        best, found = float("inf"), dict(self.chosen)
        for choice in islice(product(*options), MOST_TRIED):
            chosen = {**self.chosen, **dict(zip(undecided, choice, strict=True))}
            here = self._sorted(axis, chosen)
            if here < best:
                best, found = here, chosen
            if best <= EXACT:
                break
        self.chosen = found
        return best

    def _sorted(self, axis: str, chosen: Mapping[str, int]) -> float:
        axes = ("heads", "kv_heads") if axis in ("heads", "kv_heads") else (axis,)
        ordering = Ordering.shuffled(self.whole, seed=3, axes=axes)
        layers = range(self.whole.layers)
        cut = TinyCut(self.whole, self.whole, ordering, layers)
        layout = self.candidates.layout(chosen)
        return difference(self._student(cut, layout, {}), self.expected)

    def _student(self, cut: TinyCut, layout: Layout, changed: Mapping[str, int]) -> Tensor:
        tensors = cut.tensors(self.stored, self.growth.naming, layout=layout)
        config = self.growth.tiny.student(cut.layers, pattern=self._pattern(cut), **changed)
        return answers(loaded_from(config, tensors), self.ids)

    def _pattern(self, cut: TinyCut) -> dict[str, Any]:
        if len(cut.layers) == self.whole.layers or len(set(self.growth.kinds)) == 1:
            return {}
        found = self.pattern.values(cut.layers)
        if found is None:
            raise PruningError("no value of its configuration says of what kind the kept layers are")
        return found

    @cached_property
    def pattern(self) -> Pattern:
        """Of the tiny model."""
        tiny, naming = self.growth.tiny, self.growth.naming
        return Pattern(
            tiny.config(), tiny.fields["layers"], naming.layer_prefix, naming.expert_prefixes
        )

    def smaller(self, student: Architecture, layers: Sequence[int]) -> tuple[float, float]:
        """(difference between a student and its oracle, between the oracle and the teacher)."""
        ordering = Ordering.shuffled(self.whole, seed=5, axes=self.sortable)
        cut = TinyCut(self.whole, student, ordering, layers)
        changed = {}
        for axis in self.growth.sizes:
            size = getattr(student, axis)
            if size != getattr(self.whole, axis):
                source, times = self.growth.drivers.get(axis, (axis, 1))
                changed[source] = size // times
        expected = silenced_answers(self.model, self.sites, cut, ids=self.ids)
        got = self._student(cut, self.layout, changed)
        return difference(got, expected), difference(expected, self.expected)

    def finding(self, axis: str) -> Finding:
        """The proof of one axis."""
        if axis in self.candidates.blocked:
            return Finding(axis, reason=self.candidates.blocked[axis])
        try:
            moved = self.sorted(axis) if axis != "layers" else 0.0
            if moved > EXACT:
                return Finding(axis, moved, reason="the sorted model answers otherwise")
            self.sortable |= {axis}
            off, seen = 0.0, float("inf")
            for student, layers in self._students(axis):
                here, changed = self.smaller(student, layers)
                off, seen = max(off, here), min(seen, changed)
        except Exception as problem:  # models break in their own ways
            return Finding(axis, reason=reason_of(problem))
        if off > EXACT:
            return Finding(axis, moved, off, "a smaller student is not the silenced teacher")
        if seen < SEEN:
            return Finding(axis, moved, off, "what is left out makes no difference")
        return Finding(axis, moved, off)

    def _students(self, axis: str) -> list[tuple[Architecture, Sequence[int]]]:
        whole = self.whole
        every = range(whole.layers)
        group = whole.heads // whole.kv_heads
        tied = not self.growth.free_heads
        if axis == "layers":
            return [(replace(whole, layers=len(k)), k) for k in ((0, 2, 3), (1, 2), (0,), (0, 1, 3))]
        if axis == "heads":
            if group == 1 or not self.growth.grouped:
                smaller = {"heads": 4, "kv_heads": 4}
            else:
                smaller = {"heads": whole.kv_heads}
        elif axis == "kv_heads":
            smaller = {"kv_heads": 2, "heads": 2 * group}
        else:
            size = getattr(whole, axis)
            smaller = {axis: {"hidden": 32, "experts": size - 1}.get(axis, size - 8)}
            if axis in self.growth.drivers:
                together = self.growth.together(axis)
                smaller = {a: getattr(whole, a) * (size - 8) // size for a in together}
        if tied and axis in ("hidden", "heads"):
            smaller = {"hidden": 24, "heads": 4, "kv_heads": 4 * whole.kv_heads // whole.heads}
            if self.growth.grouped:
                smaller["kv_heads"] = 4
        return [(replace(whole, **smaller), every)]
