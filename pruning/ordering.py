"""The permutation that importance gives: most important first on every axis."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pruning.architecture import AXES, Architecture
from pruning.errors import PruningError
from pruning.importance import Importance
from pruning.saving import save_tensors


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

    @classmethod
    def from_importance(cls, importance: Importance, teacher: Architecture) -> "Ordering":
        """Sort stably, so that equal scores keep the model's order.

        A KV head counts as much as its query heads together.
        """
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
            spans=_cheapest_spans(importance.spans),
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
        cls, teacher: Architecture, seed: int = 0, axes: Collection[str] = AXES
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
        `contiguous`, else the most important; by default the span where spans were scored."""
        count = len(self.layers)
        if not 1 <= depth <= count:
            raise PruningError(f"layers is {depth}; it must be between 1 and {count}")
        if contiguous and not len(self.spans):
            raise PruningError("no spans of layers were scored, so that none can be left out")
        if contiguous or (contiguous is None and len(self.spans)):
            first = int(self.spans[count - depth])
            return [i for i in range(count) if not first <= i < first + count - depth]
        return sorted(self.layers[:depth].tolist())

    def with_layers(self, scores: Tensor, span_costs: Tensor) -> "Ordering":
        """The same order of width, and of layers as in `Importance`."""
        return replace(self, layers=_descending(scores), spans=_cheapest_spans(span_costs))

    def save(self, path: Path) -> None:
        save_tensors({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Ordering":
        return cls(**load_file(path))


def _cheapest_spans(costs: Tensor) -> Tensor:
    """First layer of the cheapest span, by its length, from costs [length, first]."""
    return costs.argmin(1) if len(costs) else torch.zeros(0, dtype=torch.int64)


def _descending(scores: Tensor) -> Tensor:
    return torch.argsort(scores, dim=-1, descending=True, stable=True)
