"""Proof of a layout, axis by axis, on a tiny random model in float64."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.families.architecture import Architecture
from pruning.families.words import Rescale
from pruning.importance.ordering import Ordering
from pruning.inference.layouts.cut import TinyCut
from pruning.inference.layouts.layout import Candidates, Layout
from pruning.inference.layouts.sites import sites_of
from pruning.inference.layouts.trace import Projection
from pruning.inference.proofs.silencing import silenced_answers
from pruning.inference.proofs.tiny_model import TinyModel
from pruning.inference.tiny.building import loaded_from
from pruning.inference.tiny.pattern import Pattern
from pruning.inference.tiny.precision import answers, difference

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
    """The axis."""
    sorted: float | None = None
    """Difference between the model and the same with that axis in another order; None where that
    was not reached."""
    silenced: float | None = None
    """Difference between a smaller student and the model with hooks; None as above."""
    reason: str = ""
    """Why it is not proven; "" where it is."""

    @classmethod
    def of_student(cls, axis: str, moved: float, *, off: float, seen: float) -> "Finding":
        """Of an axis that can be sorted, `moved` by it, and a student that is smaller on it: `off`
        from the model with hooks, which is `seen` to differ from the model."""
        if off > EXACT:
            return cls(axis, moved, off, "a smaller student is not the silenced teacher")
        if seen < SEEN:
            return cls(axis, moved, off, "what is left out makes no difference")
        return cls(axis, moved, off)

    @property
    def proven(self) -> bool:
        """Whether students may be smaller on it."""
        return not self.reason


@dataclass
class Prover:
    """Tries what the tensors of a tiny model may mean until its answers stay the same."""

    tiny: TinyModel
    """The model."""
    candidates: Candidates
    """What its tensors may mean."""
    in_memory: Candidates
    """What they may mean as a loaded model has them."""
    projections: Sequence[Projection]
    """The matrices of its layers, in the order in which they run."""
    chosen: dict[str, int] = field(default_factory=dict)
    """Tensor -> which of its options was found to be exact."""
    scaled_embedding: bool = False
    """Whether the embedding is multiplied by the root of the hidden size."""
    sortable: Collection[str] = ()
    """Axes that can be sorted."""

    @property
    def layout(self) -> Layout:
        """With the options that were found to be exact so far."""
        return self.candidates.layout(self.chosen)

    @property
    def loaded(self) -> Layout:
        """The layout of the tensors as a loaded model has them."""
        same = self.in_memory.options
        chosen = {
            name: same[name].index(axes)
            for name, axes in self.layout.axes.items()
            if axes in same.get(name, ())
        }
        return self.in_memory.layout(chosen)

    def findings(self, axes: Sequence[str]) -> dict[str, Finding]:
        """The proofs of these axes: first that each can be sorted, and then that it can be cut, of
        a model that is sorted on all that can be."""
        moved: dict[str, float] = {}
        found: dict[str, Finding] = {}
        for axis in axes:
            if axis in self.candidates.blocked:
                found[axis] = Finding(axis, reason=self.candidates.blocked[axis])
                continue
            try:
                moved[axis] = self._sorted(axis) if axis != "layers" else 0.0
            except Exception as problem:  # models break in their own ways
                found[axis] = Finding(axis, reason=reason_of(problem))
                continue
            if moved[axis] > EXACT:
                reason = "sorted on it, the model answers otherwise"
                found[axis] = Finding(axis, moved[axis], reason=reason)
        self.sortable = moved.keys() - found.keys() - {"layers"}
        self.tiny.sites = sites_of(self.tiny.growth.loaded, self.loaded, self.projections)
        for axis in axes:
            if axis not in found:
                found[axis] = self._finding(axis, moved[axis])
        return {axis: found[axis] for axis in axes}

    def _finding(self, axis: str, moved: float) -> Finding:
        """The proof that students can be smaller on an axis that can be sorted."""
        try:
            off, seen = self._silenced(axis)
            if axis == "hidden" and off > EXACT:
                self.scaled_embedding = True
                scaled, seen = self._silenced(axis)
                self.scaled_embedding = scaled <= EXACT
                off = min(off, scaled)
        except Exception as problem:  # as above
            return Finding(axis, moved, reason=reason_of(problem))
        return Finding.of_student(axis, moved, off=off, seen=seen)

    def _sorted(self, axis: str) -> float:
        """The difference that another order of an axis makes, under the options that make least.

        Tries the candidates of tensors that have several.
        """
        undecided = self.candidates.open_for(axis)
        options = [range(len(self.candidates.options[name])) for name in undecided]
        best, found = float("inf"), dict(self.chosen)
        for choice in islice(product(*options), MOST_TRIED):
            chosen = {**self.chosen, **dict(zip(undecided, choice, strict=True))}
            here = self._moved(axis, chosen)
            if here < best:
                best, found = here, chosen
            if best <= EXACT:
                break
        self.chosen = found
        return best

    def _moved(self, axis: str, chosen: Mapping[str, int]) -> float:
        tiny, whole = self.tiny, self.tiny.whole
        axes = ("heads", "kv_heads") if axis in ("heads", "kv_heads") else (axis,)
        ordering = Ordering.shuffled(whole, seed=3, axes=axes)
        cut = TinyCut(whole, whole, ordering, range(whole.layers))
        student = self._student(cut, self.candidates.layout(chosen), {})
        return difference(student, tiny.expected)

    def _silenced(self, axis: str) -> tuple[float, float]:
        """Largest difference of smaller students to the silenced teacher, and least difference
        that silencing makes."""
        off, seen = 0.0, float("inf")
        for student, layers in self._students(axis):
            here, changed = self._smaller(student, layers)
            off, seen = max(off, here), min(seen, changed)
        return off, seen

    def _smaller(self, student: Architecture, layers: Sequence[int]) -> tuple[float, float]:
        """(difference between a student and its oracle, between the oracle and the teacher)."""
        tiny, growth = self.tiny, self.tiny.growth
        ordering = Ordering.shuffled(tiny.whole, seed=5, axes=self.sortable)
        cut = TinyCut(tiny.whole, student, ordering, layers)
        changed = {}
        for axis in growth.sizes:
            size = getattr(student, axis)
            if size != getattr(tiny.whole, axis):
                source, times = growth.drivers.get(axis, (axis, 1))
                changed[source] = size // times
        expected = silenced_answers(tiny.model, tiny.sites, cut, ids=tiny.ids)
        got = self._student(cut, self.layout, changed)
        return difference(got, expected), difference(expected, tiny.expected)

    def _student(self, cut: TinyCut, layout: Layout, changed: Mapping[str, int]) -> Tensor:
        """What a student answers whose configuration has these sizes changed, by axis."""
        tiny, growth = self.tiny, self.tiny.growth
        tensors = cut.tensors(tiny.stored, growth.naming, layout=layout)
        before, after = cut.whole.hidden, cut.student.hidden
        for name, scale in self.rescale(tiny.model.config, before, after).items():
            tensors[name] = scale.apply(tensors[name])
        config = growth.tiny.student(cut.layers, pattern=self._pattern_of(cut), **changed)
        return answers(loaded_from(config, tensors), tiny.ids)

    def rescale(self, config: PretrainedConfig, before: int, after: int) -> dict[str, Rescale]:
        """Factors of tensors of a student with `after` of the hidden channels, for a model that
        multiplies its embedding by the root of their number."""
        if not self.scaled_embedding or before == after:
            return {}
        factor = (before / after) ** 0.5
        found = {self.tiny.ends[1]: Rescale(factor)}
        if config.tie_word_embeddings:  # the final norm takes the factor back
            norm = self.tiny.last_norm(self.layout)
            found[norm] = Rescale(1 / factor, self.tiny.norm_offset)
            bias = f"{norm.removesuffix('weight')}bias"
            if bias in self.tiny.stored:
                found[bias] = Rescale(1 / factor)
        return found

    def _pattern_of(self, cut: TinyCut) -> dict[str, Any]:
        if len(cut.layers) == cut.whole.layers or len(set(self.tiny.growth.kinds)) == 1:
            return {}
        found = self._pattern.values(cut.layers)
        if found is None:
            raise PruningError(
                "no value of its configuration says of what kind the kept layers are"
            )
        return found

    @cached_property
    def _pattern(self) -> Pattern:
        growth = self.tiny.growth
        return Pattern(growth.tiny.config(), growth.tiny.fields["layers"], growth.naming)

    def _students(self, axis: str) -> list[tuple[Architecture, Sequence[int]]]:
        """Students that are smaller on an axis, and on those that it cannot be cut without."""
        growth, whole = self.tiny.growth, self.tiny.whole
        if axis == "layers":
            choices = ((0, 2, 3), (1, 2), (0,), (0, 1, 3))
            return [(replace(whole, layers=len(kept)), kept) for kept in choices]
        group = whole.heads // whole.kv_heads
        smaller: dict[str, Any]
        if not growth.free_heads and axis in ("hidden", "heads", "kv_heads"):
            smaller = {"hidden": whole.hidden // 2, "heads": whole.heads // 2}
            whole_groups = axis == "kv_heads" or not growth.grouped
            smaller["kv_heads"] = whole.kv_heads // (2 if whole_groups else 1)
        elif axis == "heads":
            smaller = {"heads": whole.kv_heads} if group > 1 else {"heads": 4, "kv_heads": 4}
        elif axis == "kv_heads":
            smaller = {"kv_heads": 2, "heads": 2 * group}
        elif axis in growth.drivers:
            size = getattr(whole, axis)
            together = growth.together(axis)
            smaller = {other: getattr(whole, other) * (size - 8) // size for other in together}
        else:
            smaller = {axis: {"hidden": 32}.get(axis, getattr(whole, axis) - 1)}
        return [(replace(whole, **smaller), range(whole.layers))]
