"""Ordering: the permutation that importance gives, most important first on every axis."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from common.errors import PruningError
from pruning.families.architecture import AXES, Architecture
from pruning.families.saving import save_tensors
from pruning.importance.measure import Importance


@dataclass(frozen=True)
class Ordering:
    """Where each place of the sorted teacher comes from (int64 indices into the teacher)."""

    hidden: Tensor
    """[hidden], one order for the whole residual stream."""
    heads: Tensor
    """[layers, heads], query heads; the heads of a KV head stay together."""
    kv_heads: Tensor
    """[layers, kv_heads], key-value heads."""
    ffn: Tensor
    """[layers, ffn]."""
    layers: Tensor
    """[layers], layers by importance. The sorted teacher keeps the model's order."""
    experts: Tensor
    """[layers, experts]; no columns for a dense model."""
    expert_ffn: Tensor
    """[layers, experts, expert_ffn], by the teacher's number of the expert."""
    spans: Tensor
    """[layers], the first layer to drop, by how many are dropped; empty where the ranks decide."""
    places: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    """[places, layers], whether a layer may stand at a place of a student; empty where any may."""

    @classmethod
    def from_importance(
        cls, importance: Importance, teacher: Architecture, *, places: Tensor | None = None
    ) -> "Ordering":
        """Sort stably, so that equal scores keep the model's order.

        A KV head counts as much as its query heads together. `places` are as in the field.
        """
        places = torch.zeros(0, 0, dtype=torch.bool) if places is None else places
        group = teacher.heads // teacher.kv_heads
        scores = importance.heads.unflatten(1, (teacher.kv_heads, group))
        kv_heads = _descending(scores.sum(-1))
        within = _descending(scores) + torch.arange(teacher.kv_heads)[:, None] * group
        heads = within.gather(1, kv_heads[..., None].expand_as(within)).flatten(1)
        return cls(
            hidden=_descending(importance.hidden),
            heads=heads,
            kv_heads=kv_heads,
            ffn=_descending(importance.ffn),
            layers=_descending(importance.layers),
            experts=_descending(importance.experts),
            expert_ffn=_descending(importance.expert_ffn),
            spans=_cheapest_spans(importance.spans, places),
            places=places,
        )

    @classmethod
    def identity(cls, teacher: Architecture) -> "Ordering":
        """The order of a teacher that is sorted already."""

        def rows(*sizes: int) -> Tensor:
            return torch.arange(sizes[-1]).expand(*sizes)

        return cls(
            hidden=rows(teacher.hidden),
            heads=rows(teacher.layers, teacher.heads),
            kv_heads=rows(teacher.layers, teacher.kv_heads),
            ffn=rows(teacher.layers, teacher.ffn),
            layers=rows(teacher.layers),
            experts=rows(teacher.layers, teacher.experts),
            expert_ffn=rows(teacher.layers, teacher.experts, teacher.expert_ffn),
            spans=torch.zeros(0, dtype=torch.int64),
        )

    @classmethod
    def shuffled(
        cls, teacher: Architecture, *, seed: int = 0, axes: Collection[str] = AXES
    ) -> "Ordering":
        """A random order of every axis of `axes`, within what an order may do; the model's order
        of the others. For proving that a teacher can be sorted at all."""
        generator = torch.Generator().manual_seed(seed)

        def scores(axis: str, *shape: int) -> Tensor:
            if axis in axes:
                return torch.rand(*shape, generator=generator)
            return torch.zeros(*shape)

        layers = teacher.layers
        importance = Importance(
            hidden=scores("hidden", teacher.hidden),
            heads=scores("heads", layers, teacher.heads),
            ffn=scores("ffn", layers, teacher.ffn),
            layers=torch.zeros(layers),
            experts=scores("experts", layers, teacher.experts),
            expert_ffn=scores("expert_ffn", layers, teacher.experts, teacher.expert_ffn),
        )
        return cls.from_importance(importance, teacher)

    def kept_layers(self, depth: int, contiguous: bool | None = None) -> list[int]:
        """The `depth` layers to keep, in the model's order: all but the cheapest span if
        `contiguous`, else the most important; by default the span where spans were scored.

        Only layers that may stand at their places: the most important one is kept, and the next,
        each if the student can still be completed with it.
        """
        count = len(self.layers)
        if not 1 <= depth <= count:
            raise PruningError(f"layers is {depth}; it must be between 1 and {count}")
        if contiguous and not len(self.spans):
            raise PruningError("no spans of layers were scored, so that none can be left out")
        contiguous = bool(len(self.spans)) if contiguous is None else contiguous
        if not can_keep(self.places, depth, contiguous=contiguous):
            raise PruningError(f"no {depth} layers of the model keep the pattern that is asked for")
        if contiguous:
            return _without(count, int(self.spans[count - depth]), dropped=count - depth)
        if not len(self.places):
            return sorted(self.layers[:depth].tolist())
        kept: list[int] = []
        for layer in self.layers.tolist():
            if len(kept) < depth and _completed(self.places, depth, kept=[*kept, layer]):
                kept.append(layer)
        return sorted(kept)

    def with_layers(self, scores: Tensor, span_costs: Tensor) -> "Ordering":
        """The same order of width, and of layers as in `Importance`."""
        spans = _cheapest_spans(span_costs, self.places)
        return replace(self, layers=_descending(scores), spans=spans)

    def save(self, path: Path) -> None:
        """Write the order to a safetensors file."""
        save_tensors({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Ordering":
        """The order in a file that `save` wrote."""
        return cls(**load_file(path))


def can_keep(places: Tensor, depth: int, *, contiguous: bool = False) -> bool:
    """Whether a student of so many layers can have each at a place where it may stand; `contiguous`
    asks for a student that leaves one span out. `places` is as in `Ordering`."""
    if not len(places) or not contiguous:
        return _completed(places, depth, kept=[])
    dropped = len(places) - depth
    return any(
        _fit(places, _without(len(places), first, dropped=dropped)) for first in range(depth + 1)
    )


def _completed(places: Tensor, depth: int, *, kept: list[int]) -> bool:
    """Whether `depth` layers, these among them, can stand at the places of a student."""
    counts = 1  # bit n: n layers can be kept of those seen so far
    for layer, at in enumerate(places.T.tolist()):
        taken = (counts & sum(1 << place for place, may in enumerate(at) if may)) << 1
        counts = taken if layer in kept else counts | taken
    return not len(places) or bool(counts >> depth & 1)


def _fit(places: Tensor, layers: list[int]) -> bool:
    return all(bool(places[place, layer]) for place, layer in enumerate(layers))


def _without(count: int, first: int, *, dropped: int) -> list[int]:
    """The layers of `count` that are not in a span."""
    return [layer for layer in range(count) if not first <= layer < first + dropped]


def _cheapest_spans(costs: Tensor, places: Tensor) -> Tensor:
    """First layer of the cheapest span, by its length, from costs [length, first]; of those that
    leave every layer at a place where it may stand, where there is one."""
    if not len(costs):
        return torch.zeros(0, dtype=torch.int64)
    if len(places):
        costs = costs.clone()
        for dropped, first in torch.nonzero(costs < torch.inf).tolist():
            if not _fit(places, _without(len(places), first, dropped=dropped)):
                costs[dropped, first] = torch.inf
    return costs.argmin(1)


def _descending(scores: Tensor) -> Tensor:
    return torch.argsort(scores, dim=-1, descending=True, stable=True)
