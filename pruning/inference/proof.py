"""Proof of a layout, axis by axis, on a tiny random model in float64."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.families.architecture import Architecture
from pruning.families.spec import Axes, Constraint, Rescale
from pruning.families.table.common import HEADS_DIVIDE_HIDDEN, HIDDEN_FOLLOWS_HEADS
from pruning.families.table.mixtures import EXPERTS_ALIGNED
from pruning.importance.ordering import Ordering
from pruning.inference.building import loaded_from, random_model, stored_tensors
from pruning.inference.cut import TinyCut
from pruning.inference.growth import Growth
from pruning.inference.layout import Candidates, Layout
from pruning.inference.pattern import Pattern
from pruning.inference.precision import Float64, answers, difference
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
    scaled_embedding: bool = False

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
        before, after = cut.whole.hidden, cut.student.hidden
        for name, scale in self.rescale(self.model.config, before, after).items():
            tensors[name] = scale.apply(tensors[name])
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
            off, seen = self._silenced(axis)
            if axis == "hidden" and off > EXACT:
                self.scaled_embedding = True
                scaled, seen = self._silenced(axis)
                self.scaled_embedding = scaled <= EXACT
                off = min(off, scaled)
        except Exception as problem:  # models break in their own ways
            return Finding(axis, reason=reason_of(problem))
        if off > EXACT:
            return Finding(axis, moved, off, "a smaller student is not the silenced teacher")
        if seen < SEEN:
            return Finding(axis, moved, off, "what is left out makes no difference")
        return Finding(axis, moved, off)

    @property
    def layers(self) -> list[Any]:
        """The layers of the model."""
        prefix = self.sites.layer_prefix
        return [self.model.get_submodule(f"{prefix}.{i}") for i in range(self.whole.layers)]

    @cached_property
    def norm_offset(self) -> float:
        """What norms over the hidden channels add to their weight: asked of the first."""
        hidden = self.whole.hidden
        x = torch.randn(1, hidden, generator=torch.Generator().manual_seed(1)).double()
        for module in self.model.modules():
            weight = getattr(module, "weight", None)
            if "norm" not in type(module).__name__.lower() or weight is None:
                continue
            if weight.shape != (hidden,):
                continue
            norm = copy.deepcopy(module)
            said = []
            with torch.no_grad(), Float64():
                if getattr(norm, "bias", None) is not None:
                    norm.bias.zero_()
                for value in (0.0, 1.0):
                    norm.weight.fill_(value)
                    said.append(norm(x))
            return float((said[0] / (said[1] - said[0])).mean().round(decimals=6))
        return 0.0

    def rescale(
        self, config: PretrainedConfig, before: int, after: int
    ) -> dict[str, Rescale]:
        """Factors for a model that multiplies its embedding by the root of its hidden size."""
        if not self.scaled_embedding or before == after:
            return {}
        factor = (before / after) ** 0.5
        found = {self.ends[1]: Rescale(factor)}
        if config.tie_word_embeddings:
            found[self.last_norm] = Rescale(1 / factor, self.norm_offset)
        return found

    def size_rules(self) -> list[Constraint]:
        """Rules that sizes must meet for transformers to build and run the model."""
        sizes = self.growth.sizes
        rules = [EXPERTS_ALIGNED] if "experts" in sizes else []
        if not self.growth.free_heads:
            return [*rules, HIDDEN_FOLLOWS_HEADS]
        if self._answers(hidden=sizes["hidden"] - 3):
            return rules
        if self._answers(hidden=sizes["hidden"] - 2):
            return [*rules, Constraint("an even hidden size", lambda config, a: a.hidden % 2 == 0)]
        return [*rules, HEADS_DIVIDE_HIDDEN]

    def _answers(self, **changed: int) -> bool:
        """Whether a model with these sizes changed can be built and answers."""
        try:
            answers(random_model(self.growth.tiny.config(**changed)), self.ids)
        except Exception:  # that is the question
            return False
        return True

    def _silenced(self, axis: str) -> tuple[float, float]:
        """Largest difference of smaller students to the silenced teacher, and least difference
        that silencing makes."""
        off, seen = 0.0, float("inf")
        for student, layers in self._students(axis):
            here, changed = self.smaller(student, layers)
            off, seen = max(off, here), min(seen, changed)
        return off, seen

    @cached_property
    def ends(self) -> tuple[tuple[str, Axes], str]:
        """(output head, embedding): the name of the one with its axes, and that of the other."""
        growth, layout = self.growth, self.layout
        both = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if None in both:
            raise PruningError("its model does not say which its embedding and output head are")
        names: dict[int, list[str]] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), []).append(name)
        heads, embeddings = (names.get(id(module.weight), []) for module in both)
        embedding = next((name for name in embeddings if name in growth.outer), None)
        if embedding is None:
            raise PruningError("its embedding has another name on disk than in memory")
        own = next((name for name in heads if name in growth.outer and name != embedding), None)
        if own is not None:
            return (own, layout.axes[own]), embedding
        return (next(n for n in heads if n != embedding), layout.axes[embedding]), embedding

    @property
    def last_norm(self) -> str:
        """Weight of the norm after the layers."""
        axes = self.layout.axes
        norms = [n for n in self.growth.outer if axes[n] == ("hidden",) and n.endswith(".weight")]
        return max(norms, key=lambda name: list(self.stored).index(name))

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
