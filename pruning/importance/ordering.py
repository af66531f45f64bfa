"""Ordering: the permutation that importance gives, most important first on every axis."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import AXES, Architecture
from pruning.families.kinds import ALL_SHARES, LayerShares
from pruning.families.shapes import kinds_of
from pruning.families.table import family_of, layer_heads
from pruning.families.tensors import save_tensors
from pruning.families.words import LayerHeads
from pruning.importance.measure import Importance

NONE = torch.zeros(0, 0, dtype=torch.int64)


@dataclass(frozen=True)
class LayerMix:
    """Kinds of the layers of a model, how many of each a student keeps, and their heads."""

    kinds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """[layers], the number of the kind of each; empty where all are alike."""
    shares: Tensor = field(default_factory=lambda: NONE)
    """[depths, kinds], how many layers of each kind a student of a depth keeps."""
    heads: tuple[LayerHeads, ...] = ()
    """The heads of each layer; () where layers do not differ in them."""

    @classmethod
    def of(cls, config: PretrainedConfig, shares: LayerShares = ALL_SHARES) -> "LayerMix":
        """Those of a model with this configuration; raises PruningError for floors above what it
        has."""
        kinds = kinds_of(config)
        differ = family_of(config).layer_heads is not None
        heads = tuple(layer_heads(config, i) for i in range(len(kinds))) if differ else ()
        if len(set(kinds)) == 1:
            return cls(heads=heads)
        counts = shares.counts(kinds)
        numbers = {kind: number for number, kind in enumerate(counts)}
        table = np.stack(list(counts.values()), axis=1)
        of_layers = torch.tensor([numbers[kind] for kind in kinds])
        return cls(of_layers, torch.from_numpy(table), heads)


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
    """[layers, experts]; no columns for a dense model. Those of a router's group stay together."""
    expert_ffn: Tensor
    """[layers, experts, expert_ffn], by the teacher's number of the expert."""
    spans: Tensor
    """[layers], the first layer to drop, by how many are dropped; empty where the ranks decide."""
    places: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    """[places, layers], whether a layer may stand at a place of a student; empty where any may."""
    shared_ffn: Tensor = field(default_factory=lambda: NONE)
    """[layers, shared_ffn]."""
    expert_latent: Tensor = field(default_factory=lambda: NONE)
    """[layers, expert_latent]."""
    ssm_heads: Tensor = field(default_factory=lambda: NONE)
    """[layers, ssm_heads]; the heads of a group stay together."""
    ssm_groups: Tensor = field(default_factory=lambda: NONE)
    """[layers, ssm_groups]."""
    ssm_head_dim: Tensor = field(default_factory=lambda: NONE[None])
    """[layers, ssm_heads, ssm_head_dim], by the teacher's number of the head."""
    ssm_state: Tensor = field(default_factory=lambda: NONE[None])
    """[layers, ssm_groups, ssm_state], by the teacher's number of the group."""
    kinds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """[layers], the number of the kind of each; empty where all are alike."""
    shares: Tensor = field(default_factory=lambda: NONE)
    """[depths, kinds], how many layers of each kind a student of a depth keeps."""

    @classmethod
    def from_importance(
        cls,
        importance: Importance,
        teacher: Architecture,
        *,
        places: Tensor | None = None,
        mix: LayerMix | None = None,
        expert_groups: int = 1,
    ) -> "Ordering":
        """Sort stably, so that equal scores keep the model's order.

        A KV head counts as much as its query heads together, and a group of recurrent heads as much
        as these. `places` are as in the field; `mix` says of which kind layers are, where they
        differ and each kind keeps its share, and which KV heads of theirs go together; experts that
        are routed in `expert_groups` are sorted inside each, and the groups as they are.
        """
        places = torch.zeros(0, 0, dtype=torch.bool) if places is None else places
        mix = LayerMix() if mix is None else mix
        if mix.heads:
            kv_heads, heads = _by_layer(importance.heads, teacher.kv_heads, layers=mix.heads)
        else:
            kv_heads, heads = _in_groups(importance.heads, teacher.kv_heads)
        ssm_groups, ssm_heads = _in_groups(importance.ssm_heads, teacher.ssm_groups)
        return cls(
            hidden=_descending(importance.hidden),
            heads=heads,
            kv_heads=kv_heads,
            ffn=_descending(importance.ffn),
            layers=_descending(importance.layers),
            experts=_inside_groups(importance.experts, expert_groups),
            expert_ffn=_descending(importance.expert_ffn),
            spans=_cheapest_spans(importance.spans, places),
            places=places,
            shared_ffn=_descending(importance.shared_ffn),
            expert_latent=_descending(importance.expert_latent),
            ssm_heads=ssm_heads,
            ssm_groups=ssm_groups,
            ssm_head_dim=_descending(importance.ssm_head_dim),
            ssm_state=_descending(importance.ssm_state),
            kinds=mix.kinds,
            shares=mix.shares,
        )

    @classmethod
    def identity(cls, teacher: Architecture) -> "Ordering":
        """The order of a teacher that is sorted already."""

        def rows(*sizes: int) -> Tensor:
            return torch.arange(sizes[-1]).expand(*sizes)

        layers = teacher.layers
        return cls(
            hidden=rows(teacher.hidden),
            heads=rows(layers, teacher.heads),
            kv_heads=rows(layers, teacher.kv_heads),
            ffn=rows(layers, teacher.ffn),
            layers=rows(layers),
            experts=rows(layers, teacher.experts),
            expert_ffn=rows(layers, teacher.experts, teacher.expert_ffn),
            spans=torch.zeros(0, dtype=torch.int64),
            shared_ffn=rows(layers, teacher.shared_ffn),
            expert_latent=rows(layers, teacher.expert_latent),
            ssm_heads=rows(layers, teacher.ssm_heads),
            ssm_groups=rows(layers, teacher.ssm_groups),
            ssm_head_dim=rows(layers, teacher.ssm_heads, teacher.ssm_head_dim),
            ssm_state=rows(layers, teacher.ssm_groups, teacher.ssm_state),
        )

    @classmethod
    def shuffled(
        cls,
        teacher: Architecture,
        *,
        seed: int = 0,
        axes: Collection[str] = AXES,
        shared_channels: bool = False,
        expert_groups: int = 1,
        mix: LayerMix | None = None,
    ) -> "Ordering":
        """A random order of every axis of `axes`, within what an order may do; the model's order
        of the others. For proving that a teacher can be sorted at all. `shared_channels` is as in
        its family, `expert_groups` and `mix` as in `from_importance`."""
        generator = torch.Generator().manual_seed(seed)

        def scores(axis: str, *shape: int) -> Tensor:
            if axis in axes:
                return torch.rand(*shape, generator=generator)
            return torch.zeros(*shape)

        layers, heads = teacher.layers, teacher.ssm_heads
        channels = scores("ssm_head_dim", layers, heads, teacher.ssm_head_dim)
        if shared_channels:
            channels = channels[:, :1].expand_as(channels)
        importance = Importance(
            hidden=scores("hidden", teacher.hidden),
            heads=scores("heads", layers, teacher.heads),
            ffn=scores("ffn", layers, teacher.ffn),
            layers=torch.zeros(layers),
            experts=scores("experts", layers, teacher.experts),
            expert_ffn=scores("expert_ffn", layers, teacher.experts, teacher.expert_ffn),
            shared_ffn=scores("shared_ffn", layers, teacher.shared_ffn),
            expert_latent=scores("expert_latent", layers, teacher.expert_latent),
            ssm_heads=scores("ssm_heads", layers, heads),
            ssm_head_dim=channels,
            ssm_state=scores("ssm_state", layers, teacher.ssm_groups, teacher.ssm_state),
        )
        return cls.from_importance(importance, teacher, mix=mix, expert_groups=expert_groups)

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
        if not len(self.places) and not len(self.kinds):
            return sorted(self.layers[:depth].tolist())
        kept: list[int] = []
        left = self.shares[depth].tolist() if len(self.kinds) else [depth]
        for layer in self.layers.tolist():
            kind = int(self.kinds[layer]) if len(self.kinds) else 0
            if left[kind] and _completed(self.places, depth, kept=[*kept, layer]):
                kept.append(layer)
                left[kind] -= 1
        if len(kept) < depth:
            raise PruningError(
                f"no {depth} layers of the model keep the pattern that is asked for and its share "
                "of each kind"
            )
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


def _in_groups(scores: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(groups, units of the groups in their new order), from scores [layers, units]: by the sum
    over each group, and inside of it."""
    if not groups:
        return NONE, NONE
    order = _descending(scores.unflatten(1, (groups, -1)).sum(-1))
    within = _inside_groups(scores, groups).unflatten(1, (groups, -1))
    return order, within.gather(1, order[..., None].expand_as(within)).flatten(1)


def _by_layer(
    scores: Tensor, kv_heads: int, *, layers: Sequence[LayerHeads]
) -> tuple[Tensor, Tensor]:
    """(KV heads, query heads in their new order) of layers that differ in their heads.

    KV heads that are one in a layer stay in a run, over which its query heads are spread: a student
    that keeps a part of each of the run has the most important ones of the run. Layers with the
    same keys and values have their KV heads in one order, by what the heads of all are worth.
    """
    sums: dict[int, Tensor] = {}
    for index, layer in enumerate(layers):
        source = index if layer.kv_source is None else layer.kv_source
        worth = scores[index].unflatten(0, (kv_heads // layer.kv_together, -1)).sum(-1)
        sums[source] = sums.get(source, torch.zeros_like(worth)) + worth
    of_kv_heads, of_heads = [], []
    for index, layer in enumerate(layers):
        run = layer.kv_together
        order = _descending(sums[index if layer.kv_source is None else layer.kv_source])
        of_kv_heads.append((order[:, None] * run + torch.arange(run)).flatten())
        ranked = _inside_groups(scores[index], len(order)).unflatten(0, (len(order), -1, run))
        of_heads.append(ranked[order].transpose(1, 2).flatten())
    return torch.stack(of_kv_heads), torch.stack(of_heads)


def _inside_groups(scores: Tensor, groups: int) -> Tensor:
    """Units of the groups in their new order, from scores [..., units]: the groups as they are, and
    sorted inside of each."""
    if not scores.shape[-1]:
        return _descending(scores)
    inside = scores.unflatten(-1, (groups, -1))
    within: Tensor = _descending(inside) + torch.arange(groups)[:, None] * inside.shape[-1]
    return within.flatten(-2)


def _descending(scores: Tensor) -> Tensor:
    return torch.argsort(scores, dim=-1, descending=True, stable=True)
