"""Proof of a row, written or inferred, on a tiny random model or on a block of a teacher.

Sorted it must answer as it is, on every axis; in full size too; and a student that is smaller on
one axis must answer as the model does with hooks that silence what the student leaves out.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import reason_of
from pruning.families.architecture import SSM_AXES, Architecture
from pruning.families.legality import is_legal
from pruning.families.shapes import architecture_of, axis_rows, dimension_rows
from pruning.families.spec import Family
from pruning.families.table import expert_groups, family_of
from pruning.importance.ordering import LayerMix, Ordering
from pruning.inference.layouts.cut import TinyCut
from pruning.inference.layouts.layout import Alias, Layout
from pruning.inference.layouts.sites import Sites, spanning_norms
from pruning.inference.proofs.search import EXACT, Finding
from pruning.inference.proofs.silencing import silenced_answers
from pruning.inference.tiny.building import loaded_from
from pruning.inference.tiny.precision import answers, difference
from pruning.slicing.configuration import student_config
from pruning.slicing.selection import Slice

AXES = ("hidden", "ffn", "heads", "kv_heads", "experts", "expert_ffn", "shared_ffn", "layers")
"""Axes that can be proven here."""
SHARES = (0.5, 0.75, 0.875)
"""Of a size, what students are tried with until one is legal."""
TOGETHER = (("hidden", "heads", "kv_heads"), ("ffn", "expert_ffn", "shared_ffn"))
"""Axes of which a type may tie some to others."""


@dataclass
class FamilyProof:
    """A model, by its tensors on disk, and the row that it is held against."""

    config: PretrainedConfig
    """Its configuration."""
    stored: Mapping[str, Tensor]
    """Its tensors in float64."""

    @cached_property
    def family(self) -> Family:
        """The row."""
        return family_of(self.config)

    @cached_property
    def whole(self) -> Architecture:
        """Its sizes."""
        return architecture_of(self.config)

    @cached_property
    def model(self) -> Any:
        """The model, as transformers loads it."""
        return loaded_from(_eager(self.config), self.stored)

    @cached_property
    def ids(self) -> Tensor:
        """Token ids [batch, sequence] that it is asked."""
        vocab = min(self.config.vocab_size, 64)
        return torch.randint(vocab, (2, 13), generator=torch.Generator().manual_seed(2))

    @cached_property
    def expected(self) -> Tensor:
        """What it answers."""
        return answers(self.model, self.ids)

    def findings(self) -> Iterator[Finding]:
        """The proof of every axis that the row lets be cut, one after the other."""
        for axis in AXES:
            size = getattr(self.whole, axis)
            if size and axis not in self.family.unsorted and not (axis == "layers" and size == 1):
                yield self._finding(axis)

    def _finding(self, axis: str) -> Finding:
        moved = None
        try:
            moved = self._moved(axis)
            if moved > EXACT:
                return Finding(axis, moved, reason="sorted on it, the model answers otherwise")
            student = self._student(axis)
            if student is None:
                return Finding(
                    axis, moved, reason="no student that is smaller on it alone is legal"
                )
            off, seen = self._silenced(student)
        except Exception as problem:  # models break in their own ways
            return Finding(axis, moved, reason=reason_of(problem))
        return Finding.of_student(axis, moved, off=off, seen=seen)

    def _moved(self, axis: str) -> float:
        axes = ("heads", "kv_heads") if axis in ("heads", "kv_heads") else (axis,)
        return difference(self._cut(self.whole, self._shuffled(axes, seed=3))[1], self.expected)

    def _silenced(self, student: Architecture) -> tuple[float, float]:
        """(difference of a student to the silenced model, of that to the model)."""
        axes = [axis for axis in AXES if axis not in self.family.unsorted]
        cut, got = self._cut(student, self._shuffled(axes, seed=5))
        expected = silenced_answers(self.model, self._sites, cut, ids=self.ids)
        return difference(got, expected), difference(expected, self.expected)

    def _shuffled(self, axes: Collection[str], *, seed: int) -> Ordering:
        return Ordering.shuffled(
            self.whole,
            seed=seed,
            axes=axes,
            expert_groups=expert_groups(self.config),
            mix=LayerMix.of(self.config),
        )

    def _cut(self, student: Architecture, ordering: Ordering) -> tuple[TinyCut, Tensor]:
        """A student, and what it answers."""
        kept = ordering.kept_layers(student.layers)
        cut = Slice(self.config, ordering, student, kept)
        tensors = {
            name: cut.gather(self.stored[source.name], source) for name, source in cut.tensors()
        }
        if student.hidden < self.whole.hidden:
            for name, scale in self.family.rescale(self.config, student).items():
                tensors[name] = scale.apply(tensors[name])
        config = _eager(student_config(self.config, student, kept))
        silenced = TinyCut(self.whole, student, ordering, kept)
        return silenced, answers(loaded_from(config, tensors), self.ids)

    def _student(self, axis: str) -> Architecture | None:
        """A legal student that is smaller on an axis, and on those that it is tied to."""
        group = self.whole.heads // self.whole.kv_heads
        for tied in (False, True):
            for share in SHARES:
                axes = self._with(axis, tied=tied)
                found: dict[str, Any] = {other: self._less(other, share) for other in axes}
                if axis == "kv_heads":
                    found["heads"] = found["kv_heads"] * group
                student = replace(self.whole, **found)
                if is_legal(self.config, student):
                    return student
        return None

    def _with(self, axis: str, *, tied: bool) -> list[str]:
        axes = [axis]
        if axis == "heads" and self.whole.heads == self.whole.kv_heads:
            axes.append("kv_heads")
        for group in TOGETHER if tied else ():
            axes += [other for other in group if axis in group and getattr(self.whole, other)]
        return axes

    def _less(self, axis: str, share: float) -> int:
        size: int = getattr(self.whole, axis)
        unit = 8 if size % 16 == 0 or axis not in ("layers", "heads", "kv_heads", "experts") else 1
        return max(1, int(size * share) // unit * unit) if size > unit else max(1, size - 1)

    @cached_property
    def _layout(self) -> Layout:
        family, rows = self.family, axis_rows(self.config)
        axes = family.outer_axes(self.config)
        for layer in range(self.whole.layers):
            axes |= family.layer_axes(self.config, layer)
        aliases = {name: Alias(axis.size, axis.rows) for name, axis in rows.items()}
        for name, axis in rows.items():
            if axis.size in SSM_AXES:  # recurrent parts are not cut here
                whole = dimension_rows(self.whole, name, rows=rows)
                aliases[name] = Alias("", int(whole))
        numbers = {part for dims in axes.values() for dim in dims for part in dim.split("+")}
        aliases |= {part: Alias("", int(part)) for part in numbers if part.isdecimal()}
        return Layout(axes, aliases)

    @cached_property
    def _sites(self) -> Sites:
        family = self.family
        fused = dict(family.fused_experts) or dict(family.expert_tensors)
        router = next((n for n, axes in fused.items() if axes == ("experts", "hidden")), "")
        if not router:
            loaded = family.loaded_axes(self.config, self.whole.layers - 1)
            router = next((n for n, axes in loaded.items() if axes == ("experts", "hidden")), "")
        output, columns = "", 0
        for name, axes in fused.items():
            if len(axes) == 3 and "expert_ffn" in axes[1:]:
                output, columns = name, axes.index("expert_ffn")
        spanning = spanning_norms(self._layout)
        return Sites(
            layer_prefix=family.layers_module,
            attention_input=family.attention_input,
            attention_output=family.attention_output,
            ffn_input=family.ffn_input,
            ffn_output=family.ffn_output,
            router=router,
            expert_output=output,
            expert_columns=columns,
            shared_output=family.shared_output,
            spanning_norms=spanning,
        )


def _eager(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of a model that computes in plain products, which know float64."""
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config
